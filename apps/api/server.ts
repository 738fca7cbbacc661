import type { IncomingMessage } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Access, Rates } from '@longhaul/access';
import { Artifacts, ContentUrls } from '@longhaul/artifacts';
import { JobLog } from '@longhaul/job-log';
import { Jobs } from '@longhaul/jobs';
import { Audit } from '@longhaul/audit';
import type { Catalog } from '@longhaul/mcp';
import { Oauth } from '@longhaul/oauth';
import { Database } from '@longhaul/persistence';
import { NestLogger, Readiness, createLogger, setLogLevel } from '@longhaul/telemetry';
import { TRANSFER_MS, installArtifactRoutes } from './artifacts/routes.js';
import { ApiModule, product } from './api.module.js';
import { installBodyDeadline, installBodyParser } from './body.js';
import type { ApiConfig } from './config.js';
import { installGate, requestIdOf } from './gate.js';
import { networkOf } from './network.js';
import { mountOauth } from './oauth/mount.js';
import { installRestRoutes } from './rest/index.js';

/** Of a stop: what is still connected by then has had its answer, or will never read it. */
const CUT_CONNECTIONS_MS = 4_000;
const BODY_DEADLINE_MS = 60_000;

export interface ApiServer {
  /** Where it listens; the port is a real one even where PORT is 0. */
  port: number;
  /** Serves on for `delayMs`, unready; then lets requests under way answer, and frees everything. */
  close(delayMs?: number): Promise<void>;
}

/** Starts the API, unready while the database is away. Throws when that is the queue, too, and away for a minute, and when the port is taken. */
export async function startServer(config: ApiConfig, catalog: Catalog = product): Promise<ApiServer> {
  setLogLevel(config.LOG_LEVEL);
  const { https, trustProxy } = networkOf(config);
  const adapter = new FastifyAdapter({
    ...(https && { https }),
    trustProxy,
    genReqId: (request: Pick<IncomingMessage, 'headers'>) => requestIdOf(request.headers['x-request-id']),
    // As long as Node lets a request line be: whoever reads a parameter says what is too long.
    routerOptions: { maxParamLength: 16_384 },
    forceCloseConnections: 'idle',
    // Uploads may take long; of all else installBodyDeadline cuts what dribbles in, and Node what stays in its headers.
    requestTimeout: TRANSFER_MS + 60_000,
  });
  const app = await NestFactory.create<NestFastifyApplication>(ApiModule.with(config, catalog), adapter, {
    bodyParser: false,
    abortOnError: false,
    logger: new NestLogger(createLogger('nest')),
  });
  const server = adapter.getInstance();
  const readiness = app.get(Readiness);
  server.addHook('onRequest', async (_request, reply) => {
    // So that the next request comes by another connection, which may lead elsewhere.
    if (readiness.stopping) reply.raw.setHeader('connection', 'close');
  });
  installBodyParser(server);
  installBodyDeadline(server, BODY_DEADLINE_MS);
  const oauth = app.get(Oauth);
  installGate(server, { access: app.get(Access), audit: app.get(Audit), oauth }, config);
  mountOauth(server, oauth, app.get(Audit));
  installRestRoutes(server, {
    access: app.get(Access),
    audit: app.get(Audit),
    db: app.get(Database),
    jobs: app.get(Jobs),
    jobLog: app.get(JobLog),
    rates: app.get(Rates),
  });
  const urls = app.get(ContentUrls);
  installArtifactRoutes(server, {
    artifacts: app.get(Artifacts),
    urls,
    db: app.get(Database),
    audit: app.get(Audit),
    rates: app.get(Rates),
  });
  await app.listen(config.PORT, config.HOST).catch(async (error: unknown) => {
    await app.close();
    throw error;
  });
  const address = server.server.address();
  const port = typeof address === 'object' && address ? address.port : config.PORT;
  oauth.listensOn(port, https ? 'https' : 'http');
  urls.origin = oauth.origin;
  return {
    port,
    async close(delayMs = 0) {
      readiness.stopping = true;
      await pause(delayMs);
      // What would still come would be met by services that are closing.
      server.server.close();
      const force = setTimeout(() => server.server.closeAllConnections(), CUT_CONNECTIONS_MS);
      await app.close().finally(() => clearTimeout(force));
    },
  };
}
