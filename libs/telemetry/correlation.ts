import { AsyncLocalStorage } from 'node:async_hooks';

/** What ties log lines, audit events and jobs of one request together. */
export interface Correlation {
  requestId?: string;
  jobId?: string;
  attempt?: number;
  /** Of the W3C trace context that came with the request. */
  traceId?: string;
}

export const correlation = new AsyncLocalStorage<Correlation>();
