import { z } from 'zod';

export const telemetryConfig = z.object({
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'])
    .default('info')
    .describe('Least severe level that is logged'),
  METRICS_HOST: z
    .string()
    .default('127.0.0.1')
    .describe('Address on which health and metrics are served; they ask for no credentials'),
  OTEL_EXPORTER_OTLP_ENDPOINT: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      'Collector of OpenTelemetry, as http://127.0.0.1:4318, that traces are sent to by OTLP over HTTP; without it there are none',
    ),
  OTEL_EXPORTER_OTLP_HEADERS: z
    .string()
    .transform((text, context) => {
      const pairs = text.split(',').map((pair) => /^\s*([\w-]+)\s*=(.*)$/.exec(pair));
      try {
        return Object.fromEntries(pairs.map((pair) => [pair![1]!, decodeURIComponent(pair![2]!.trim())]));
      } catch {
        context.addIssue({ code: 'custom', message: 'must be name=value,… with values as in URLs' });
        return z.NEVER;
      }
    })
    .optional()
    .describe('What is sent with them, as name=value,…, such as a key'),
  OTEL_TRACES_SAMPLER_ARG: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe(
      'Share of the traces begun here that is kept; a trace that a client has begun is kept as it says',
    ),
});
export type TelemetryConfig = z.output<typeof telemetryConfig>;
