import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * What ties the log lines and spans of an attempt at a job together. The API has no such store: to follow every promise takes a
 * sixth of a call's time there, so it names the request in its lines by itself.
 */
export interface Correlation {
  jobId?: string;
  attempt?: number;
  /** Of the request that has made the job. */
  requestId?: string;
  /** Of the W3C trace context that came with the request. */
  traceId?: string;
  /** The span under way, as a W3C traceparent. */
  traceparent?: string;
}

/** Of a `traceparent` that has been checked. */
export const traceIdOf = (traceparent: string | null | undefined) => traceparent?.split('-')[1];

/** Version, trace id, parent id and flags, as W3C Trace Context has them; ids of zeros are none. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** A traceparent as it should be; undefined for anything else that a client sends. */
export const parseTraceparent = (given: unknown): string | undefined =>
  typeof given === 'string' && TRACEPARENT.test(given) ? given : undefined;

export const correlation = new AsyncLocalStorage<Correlation>();
