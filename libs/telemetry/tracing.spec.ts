import { parseTraceparent } from './correlation.js';
import { telemetryConfig } from './config.js';
import { startSpan } from './tracing.js';

const traceparent = `00-${'a1'.repeat(16)}-${'b2'.repeat(8)}-01`;

it.each([
  [traceparent, traceparent],
  [`${traceparent}; x`, undefined],
  [`00-${'0'.repeat(32)}-${'b2'.repeat(8)}-01`, undefined],
  [`00-${'a1'.repeat(16)}-${'0'.repeat(16)}-01`, undefined],
  [['a', 'b'], undefined],
  [undefined, undefined],
])('of %j it takes %j', (given, taken) => expect(parseTraceparent(given)).toBe(taken));

it('passes the trace of a client on while nothing is traced here', () => {
  const span = startSpan('tools/call x', { parent: traceparent });
  expect(span.traceparent).toBe(traceparent);
  span.end('ok', false);
});

it('reads headers for the collector as OpenTelemetry writes them, and refuses others', () => {
  const { OTEL_EXPORTER_OTLP_HEADERS: headers } = telemetryConfig.shape;
  expect(headers.parse('api-key=a%3Db, x-team=long')).toEqual({ 'api-key': 'a=b', 'x-team': 'long' });
  for (const wrong of ['api-key', '=x', 'a=%zz']) expect(headers.safeParse(wrong).success).toBe(false);
});
