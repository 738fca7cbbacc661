import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { OnApplicationBootstrap, OnApplicationShutdown } from '@nestjs/common';
import { collectDefaultMetrics } from 'prom-client';
import { createLogger } from './logger.js';
import { registry } from './metrics.js';
import type { Readiness } from './readiness.js';

/** Probes and scrapers are few. */
const CONNECTIONS_MAX = 50;
const REQUEST_MS = 5_000;

export interface HealthServerOptions {
  host: string;
  /** Nothing is served where it is undefined; 0 takes a free one. */
  port?: number;
  /** Name of the variable that the port comes from, for who has to change it. */
  variable: string;
  /** Brings gauges up to date before a scrape. What fails leaves its own out. */
  collect: () => Promise<void>;
}

let hasDefaults = false;

/**
 * `/ping`, `/healthz`, `/readyz` and `/metrics` on a port of their own, for those who run the process: it asks for no
 * credentials, answers under any Host, and tells of nobody's things.
 */
export class HealthServer implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly log = createLogger('health');
  private readonly server = createServer(
    { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS },
    (request, response) => void this.answer(request, response).catch(() => response.destroy()),
  );
  private scrape?: Promise<string>;

  constructor(
    private readonly readiness: Readiness,
    private readonly options: HealthServerOptions,
  ) {
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  async onApplicationBootstrap() {
    const { host, port, variable } = this.options;
    if (port === undefined) return;
    if (!hasDefaults) collectDefaultMetrics({ register: registry });
    hasDefaults = true;
    this.server.listen(port, host);
    await once(this.server, 'listening').catch((error: Error) => {
      throw new Error(`${variable}: cannot listen on port ${port} of ${host}: ${error.message}`);
    });
    this.log.info({ host, port: (this.server.address() as AddressInfo).port }, 'health and metrics');
  }

  /** Nest calls it once the process has done all else: until then probes hear that it is stopping. */
  onApplicationShutdown() {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async answer({ method, url }: IncomingMessage, response: ServerResponse): Promise<void> {
    const json = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const text = (body: string, type = 'text/plain') =>
      response.writeHead(200, { 'content-type': type }).end(body);
    if (method !== 'GET' && method !== 'HEAD') return void json(405, { status: 'not_allowed' });
    switch (url?.split('?')[0]) {
      case '/ping':
        return void text('pong');
      case '/healthz':
        return void json(200, { status: 'ok' });
      case '/readyz': {
        const verdict = await this.readiness.verdict();
        return void json(verdict.status === 'ready' ? 200 : 503, verdict);
      }
      case '/metrics':
        // Those who ask at once are answered by one look.
        this.scrape ??= this.metrics().finally(() => (this.scrape = undefined));
        return void text(await this.scrape, registry.contentType);
      default:
        return void json(404, { status: 'not_found' });
    }
  }

  private async metrics(): Promise<string> {
    await this.options
      .collect()
      .catch((error: unknown) => this.log.warn({ err: error }, 'some metrics could not be collected'));
    return registry.metrics();
  }
}
