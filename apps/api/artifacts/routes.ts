import { addAbortSignal, type Readable } from 'node:stream';
import {
  type ContentUrls,
  type Artifacts,
  CONTENT_TYPE,
  DiskStore,
  notUploaded,
  sizeMismatch,
  type Trace,
} from '@longhaul/artifacts';
import { type Rates } from '@longhaul/access';
import { type Audit } from '@longhaul/audit';
import { AppError, toAppError } from '@longhaul/errors';
import { type Database, type Artifact } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { sendProblem } from '../rest/problem.js';
import { admitRequest, requireUploader } from './admission.js';
import { rangeOf } from './range.js';
import { Slots } from './slots.js';

/** Who has such an address may use it: it is served under every host name, as VMs reach us under one of their own. */
export const CONTENT_ROUTE = '/artifacts/:id/content';

export interface ArtifactServices {
  artifacts: Artifacts;
  urls: ContentUrls;
  db: Database;
  audit: Audit;
  rates: Rates;
}

export interface ContentLimits {
  /** A connection on which nothing moves for this long is cut. */
  idleMs: number;
  /** However slowly it moves. */
  totalMs: number;
  uploads: { all: number; each: number };
  downloads: { all: number; each: number };
}

/** How long an upload may take that began in time; below what its row has left then. */
export const TRANSFER_MS = 30 * 60_000;

const LIMITS: ContentLimits = {
  idleMs: 30_000,
  totalMs: TRANSFER_MS,
  uploads: { all: 32, each: 8 },
  downloads: { all: 64, each: 16 },
};

const log = createLogger('artifacts');

/** Uploads to the disk store, and downloads from every store, at addresses that were signed for them. */
export function installArtifactRoutes(
  server: FastifyInstance,
  services: ArtifactServices,
  limits: ContentLimits = LIMITS,
): void {
  const content = new Content(services, limits);
  server.register(async (scope) => {
    // Bodies stay with the request: they may be larger than memory.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null));
    const shared = { url: CONTENT_ROUTE, exposeHeadRoute: false };
    scope.route({
      ...shared,
      method: 'PUT',
      handler: (request, reply) => content.upload(request, reply),
      // A content type that is none.
      errorHandler: (_error, _request, reply) => void sendProblem(reply, wrongType()),
    });
    scope.route({ ...shared, method: 'GET', handler: (request, reply) => content.download(request, reply) });
  });
}

class Content {
  private readonly uploads: Slots;
  private readonly downloads: Slots;

  constructor(
    private readonly services: ArtifactServices,
    private readonly limits: ContentLimits,
  ) {
    this.uploads = new Slots(limits.uploads, 'uploads');
    this.downloads = new Slots(limits.downloads, 'downloads');
  }

  async upload(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { services } = this;
    const startedAt = performance.now();
    let artifact: Artifact | undefined;
    try {
      artifact = await admitRequest('PUT', request, services);
      await requireUploader(artifact, services);
      const { store } = services.artifacts;
      if (!(store instanceof DiskStore)) throw new AppError('not_found', 'Uploads do not go through here.');
      if (artifact.uploadedAt) throw new AppError('conflict', 'This file has been uploaded already.');
      requireHeaders(request, artifact);
      const done = this.uploads.take(artifact.projectId);
      await this.receive(store, artifact, request).finally(done);
      await services.artifacts.noteUploaded(artifact, traceOf(request, startedAt));
      return await reply.code(204).send();
    } catch (thrown) {
      return this.refuse('artifact.upload', thrown, artifact, request, reply, startedAt);
    }
  }

  async download(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { services, limits } = this;
    const startedAt = performance.now();
    let artifact: Artifact | undefined;
    try {
      artifact = await admitRequest('GET', request, services);
      await services.rates.vmCall(artifact.vmId);
      if (!artifact.uploadedAt) throw notUploaded();
      const size = Number(artifact.sizeBytes);
      reply.headers({
        'accept-ranges': 'bytes',
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
        'content-disposition': `attachment; filename="${artifact.filename}"`,
      });
      const range = rangeOf(request.headers.range, size);
      if (range === 'unsatisfiable')
        return await reply.code(416).header('content-range', `bytes */${size}`).send();
      const done = this.downloads.take(artifact.vmId);
      const stream = await this.begin(artifact, range, request, startedAt).catch((error: unknown) => {
        done();
        throw error;
      });
      stream.once('close', done);
      request.raw.socket.setTimeout(limits.idleMs);
      if (range) {
        const last = range.offset + range.length - 1;
        reply.code(206).header('content-range', `bytes ${range.offset}-${last}/${size}`);
      }
      // Of a stream that fails Fastify cuts the connection, so that what has come is not taken for all.
      return await reply
        .type(CONTENT_TYPE)
        .header('content-length', range?.length ?? size)
        .send(stream);
    } catch (thrown) {
      return this.refuse('artifact.download', thrown, artifact, request, reply, startedAt);
    }
  }

  /** The bytes, while they move; a client that stalls or dribbles is cut off. */
  private async receive(
    store: DiskStore,
    artifact: Artifact,
    { raw, bodyDeadline }: FastifyRequest,
  ): Promise<void> {
    clearTimeout(bodyDeadline);
    const { socket } = raw;
    socket.setTimeout(this.limits.idleMs);
    // Checking and flushing may take long, with nothing left to come.
    raw.once('end', () => socket.setTimeout(0));
    await store.write(artifact, raw, AbortSignal.timeout(this.limits.totalMs));
  }

  private async begin(
    artifact: Artifact,
    range: { offset: number; length: number } | undefined,
    request: FastifyRequest,
    startedAt: number,
  ): Promise<Readable> {
    const { artifacts, audit } = this.services;
    const stream = await artifacts.store.read(artifact.id, range);
    try {
      await audit.record(artifacts.entry('artifact.download', artifact, traceOf(request, startedAt)));
    } catch (error) {
      stream.destroy();
      throw error;
    }
    return addAbortSignal(AbortSignal.timeout(this.limits.totalMs), stream);
  }

  /** Audited once it is known whose artifact it is about: what has no valid signature is nobody's. */
  private async refuse(
    event: 'artifact.upload' | 'artifact.download',
    thrown: unknown,
    artifact: Artifact | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
    startedAt: number,
  ): Promise<FastifyReply> {
    const { artifacts, audit } = this.services;
    const isGone = request.raw.destroyed && !request.raw.complete;
    const error = isGone ? new AppError('unavailable', 'The upload broke off.') : toAppError(thrown);
    const { id: requestId } = request;
    if (error.code === 'internal')
      log.error({ err: error.cause, requestId, ...error.details }, 'a request about an artifact failed');
    if (artifact)
      await audit
        .record(artifacts.entry(event, artifact, traceOf(request, startedAt), error))
        .catch((failure: unknown) =>
          log.error({ err: failure, requestId }, 'a refusal could not be audited'),
        );
    if (!isGone) return sendProblem(reply, error);
    // What still comes in would be read to its end.
    reply.hijack();
    reply.raw.destroy();
    return reply;
  }
}

function requireHeaders({ headers }: FastifyRequest, artifact: Artifact): void {
  if (headers['content-type'] !== CONTENT_TYPE) throw wrongType();
  if (headers['content-encoding'] !== undefined)
    throw new AppError('unsupported_media_type', 'Send the bytes as they are, without Content-Encoding.');
  const expected = Number(artifact.sizeBytes);
  // An empty body needs no length; any other one without is not worth reading.
  const length = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : NaN;
  if (length !== expected) throw sizeMismatch(expected, Number.isNaN(length) ? undefined : length);
}

const wrongType = () =>
  new AppError('unsupported_media_type', `Send the file with Content-Type: ${CONTENT_TYPE}.`);

const traceOf = ({ id, ip, headers }: FastifyRequest, startedAt: number): Trace => ({
  requestId: id,
  ip,
  userAgent: headers['user-agent'],
  durationMs: Math.round(performance.now() - startedAt),
});
