import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * What ties the log lines of an attempt at a job together. The API has no such store: to follow every promise takes a sixth of
 * a call's time there, so it names the request in its lines by itself.
 */
export interface Correlation {
  jobId?: string;
  attempt?: number;
  /** Of the W3C trace context that came with the request. */
  traceId?: string;
}

/** Of a `traceparent` that has been checked. */
export const traceIdOf = (traceparent: string | null | undefined) => traceparent?.split('-')[1];

export const correlation = new AsyncLocalStorage<Correlation>();
