import {
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Attributes,
  type Span,
  type Tracer,
} from '@opentelemetry/api';
import type { OnApplicationShutdown } from '@nestjs/common';
import { correlation } from './correlation.js';
import type { TelemetryConfig } from './config.js';

/** How long the last spans may take to leave when the process ends, and any batch. */
const EXPORT_MS = 2_000;

let tracer: Tracer | undefined;

export interface SpanOptions {
  /** W3C traceparent of what this belongs to; default: the span of the attempt that this runs in. */
  parent?: string | null;
  kind?: 'server' | 'producer' | 'consumer' | 'client';
  /** Words, numbers and ids of ours: never a command, an argument or output. */
  attributes?: Attributes;
}

/** A span under way, or what stands for one while nothing is traced. */
export interface OpenSpan {
  /** What is done within it belongs to this; that of the parent while nothing is traced. */
  readonly traceparent?: string;
  /** `code` says how it ended, in a word of ours. */
  end(code: string, isError: boolean): void;
}

/** Starts a span, when traces are sent anywhere. Whoever starts it ends it, once. */
export function startSpan(name: string, options: SpanOptions = {}): OpenSpan {
  const parent = options.parent ?? correlation.getStore()?.traceparent;
  if (!tracer) return { traceparent: parent, end: ignore };
  const { kind, attributes } = options;
  const spanKind = kind && SpanKind[kind.toUpperCase() as Uppercase<typeof kind>];
  const span = tracer.startSpan(name, { kind: spanKind, attributes }, contextOf(parent));
  return {
    traceparent: traceparentOf(span),
    end(code, isError) {
      span.setAttribute('longhaul.code', code);
      if (isError) span.setStatus({ code: SpanStatusCode.ERROR, message: code });
      span.end();
    },
  };
}

/** Runs `work` within a span, which ends as `work` does: of an error its code is said, or its class. */
export async function traced<T>(
  name: string,
  options: SpanOptions,
  work: (traceparent?: string) => Promise<T>,
): Promise<T> {
  const span = startSpan(name, options);
  try {
    const result = await work(span.traceparent);
    span.end('ok', false);
    return result;
  } catch (error) {
    span.end(codeOf(error), true);
    throw error;
  }
}

/** A word for what was thrown: its code where it has one. */
export function codeOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  return typeof code === 'string' ? code : typeof name === 'string' ? name : 'error';
}

/** Sends spans while it lives, where a collector is named. */
export class Tracing implements OnApplicationShutdown {
  private constructor(private readonly provider?: { shutdown(): Promise<void> }) {}

  /** `service` is the name under which the spans of this process are shown. */
  static async start(config: TelemetryConfig, service: string): Promise<Tracing> {
    const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_HEADERS: headers } = config;
    if (endpoint === undefined) return new Tracing();
    // Only those who use it load it.
    const [sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
      import('@opentelemetry/sdk-trace-base'),
      import('@opentelemetry/exporter-trace-otlp-http'),
      import('@opentelemetry/resources'),
    ]);
    const url = `${endpoint.replace(/\/$/, '')}/v1/traces`;
    const exporter = new OTLPTraceExporter({ url, headers, timeoutMillis: EXPORT_MS });
    const root = new sdk.TraceIdRatioBasedSampler(config.OTEL_TRACES_SAMPLER_ARG);
    const provider = new sdk.BasicTracerProvider({
      resource: resourceFromAttributes({ 'service.name': service }),
      sampler: new sdk.ParentBasedSampler({ root }),
      spanProcessors: [new sdk.BatchSpanProcessor(exporter, { exportTimeoutMillis: EXPORT_MS })],
    });
    tracer = provider.getTracer('longhaul');
    return new Tracing(provider);
  }

  /** Sends the last ones. */
  async onApplicationShutdown() {
    if (!this.provider) return;
    tracer = undefined;
    await this.provider.shutdown().catch(ignore);
  }
}

const ignore = () => {};

function contextOf(traceparent: string | undefined) {
  if (!traceparent) return ROOT_CONTEXT;
  const [, traceId, spanId, flags] = traceparent.split('-') as [string, string, string, string];
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16),
    isRemote: true,
  });
}

function traceparentOf(span: Span): string {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`;
}
