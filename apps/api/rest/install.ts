import { Readable } from 'node:stream';
import { actorOf, requireChange, requireOpen, type Caller } from '@longhaul/access';
import { resultOf, type AuditEntry } from '@longhaul/audit';
import { AppError, redactText, toAppError } from '@longhaul/errors';
import { type Transaction } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { parseJson } from '../body.js';
import { callerOf } from '../credentials.js';
import { notFound } from './fields.js';
import { sendProblem } from './problem.js';
import { isChange, type Download, type RestServices, type Route, type Subject } from './route.js';
import { requireStaff } from './staff.js';

const BODY_LIMIT = 64 * 1024;
/** Each may last as long as its reader is slow, and holds a page of rows. */
const DOWNLOADS_AT_ONCE = 8;

const log = createLogger('rest');

/** Serves the routes, and nothing else below `prefixes`. */
export function installRest(
  server: FastifyInstance,
  routes: readonly Route[],
  prefixes: readonly string[],
  services: RestServices,
): void {
  const rest = new Rest(services);
  const shared = {
    exposeHeadRoute: false,
    bodyLimit: BODY_LIMIT,
    onRequest: (request: FastifyRequest, reply: FastifyReply) => rest.identify(request, reply),
  };
  for (const route of routes) {
    server.route({
      ...shared,
      method: route.method,
      url: route.path.replaceAll(/\{(\w+)\}/g, ':$1'),
      handler: (request, reply) => rest.answer(route, request, reply),
      errorHandler: (error, request, reply) => void rest.refuse(route, error, request, reply),
    });
  }
  for (const prefix of prefixes) {
    server.all(`${prefix}/*`, shared, (_request, reply) => sendProblem(reply, notFound()));
  }
}

type Input = Record<'params' | 'query' | 'body', Record<string, unknown>>;

class Rest {
  private downloads = 0;

  constructor(private readonly services: RestServices) {}

  /** Before the body is read. Takes developer tokens only: those of OAuth are for /mcp, as their audience says. */
  async identify(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    reply.headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    try {
      request.caller = await callerOf(request.headers.authorization, this.services.access);
    } catch (thrown) {
      log.error({ err: thrown, requestId: request.id }, 'cannot authenticate');
      await sendProblem(
        reply,
        new AppError('unavailable', 'The credentials could not be checked. Try again later.'),
      );
      return;
    }
    if (request.caller) return;
    const isMissing = request.headers.authorization === undefined;
    reply.header('www-authenticate', isMissing ? 'Bearer' : 'Bearer error="invalid_token"');
    const message = 'Send Authorization: Bearer with a developer token that exists and has not been revoked.';
    await sendProblem(reply, new AppError('unauthenticated', message));
  }

  async answer(route: Route, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const trail = new Trail(route, request);
    let answer: unknown;
    try {
      answer = await this.handle(route, request, trail);
    } catch (thrown) {
      return this.refused(thrown, trail, reply);
    }
    reply.code(route.status ?? 200);
    if (route.answer) return reply.type('application/json; charset=utf-8').send(JSON.stringify(answer));
    return this.send(answer as Download, reply);
  }

  /** What Fastify itself found wrong with a request. */
  refuse(
    route: Route,
    error: FastifyError,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<FastifyReply> {
    const { statusCode = 500 } = error;
    const refusal =
      statusCode === 413
        ? new AppError('body_too_large', `The body is larger than ${BODY_LIMIT} bytes.`)
        : statusCode < 500
          ? new AppError('invalid_arguments', 'The body of the request is not what its headers say.')
          : error;
    return this.refused(refusal, new Trail(route, request), reply);
  }

  private async handle(route: Route, request: FastifyRequest, trail: Trail): Promise<unknown> {
    const { services } = this;
    const caller = request.caller!;
    await this.admit(route, caller);
    const input = (trail.input = readInput(route, request));
    const later: (() => Promise<unknown>)[] = [];
    const run = async (db: Transaction) => {
      const answer = await route.handle({
        ...input,
        caller,
        actor: { ...actorOf(caller), requestId: request.id },
        db,
        services,
        about: (subject) => Object.assign(trail.subject, subject),
        afterwards: (act) => later.push(act),
      });
      return route.answer ? route.answer.parse(answer) : begun(answer as Download);
    };
    if (isChange(route) && route.transaction !== 'own') {
      const answer = await services.db.$transaction(async (tx) => {
        const answer = await run(tx);
        await services.audit.write(tx, trail.toEntry()).catch(unaudited);
        return answer;
      });
      for (const act of later) await act();
      return answer;
    }
    if (!route.answer && this.downloads >= DOWNLOADS_AT_ONCE)
      throw new AppError('rate_limited', 'Too many downloads are under way.', { retry_after: 5 });
    const answer = await run(services.db);
    await services.audit.record(trail.toEntry()).catch(unaudited);
    return answer;
  }

  /** Standing, rate, then who may call; nothing about the input is said before. */
  private async admit(route: Route, caller: Caller): Promise<void> {
    // Switching MCP off must not lock out those who can switch it on again.
    requireOpen({ standing: caller.standing, switches: {} });
    await this.services.rates.call(caller);
    if (route.needs === 'staff') await requireStaff(caller, this.services.db);
    else if (!caller.scopes.includes(route.needs)) {
      throw new AppError('forbidden_scope', `This needs a token with the scope ${route.needs}.`, {
        required_scope: route.needs,
      });
    }
    if (isChange(route) && !route.takesBack) requireChange(caller);
  }

  private async refused(thrown: unknown, trail: Trail, reply: FastifyReply): Promise<FastifyReply> {
    const error = toAppError(thrown);
    if (error.code === 'internal')
      log.error({ err: error.cause, requestId: reply.request.id, ...error.details }, 'a request failed');
    try {
      await this.services.audit.record(trail.toEntry(error));
      const scope = scopesNeeded(error);
      if (scope) reply.header('www-authenticate', `Bearer error="insufficient_scope", scope="${scope}"`);
      return await sendProblem(reply, error);
    } catch (failure) {
      log.error({ err: failure, requestId: reply.request.id }, 'a request could not be audited');
      return sendProblem(
        reply,
        new AppError('unavailable', 'The request could not be audited. Try again later.'),
      );
    }
  }

  private send({ contentType, filename, chunks }: Download, reply: FastifyReply): FastifyReply {
    this.downloads++;
    // Of a stream that fails Fastify cuts the connection, so that what has come is not taken for all.
    const stream = Readable.from(chunks, { objectMode: false, highWaterMark: 64 * 1024 });
    stream.once('close', () => this.downloads--);
    stream.on('error', (err) => log.error({ err, requestId: reply.request.id }, 'a download failed'));
    return reply
      .type(contentType)
      .header('content-disposition', `attachment; filename="${filename}"`)
      .send(stream);
  }
}

/** Of RFC 6750; undefined when other scopes would not help. */
function scopesNeeded({ code, details }: AppError): string | undefined {
  if (code !== 'forbidden_scope') return undefined;
  const { required_scope: one, required_scopes: all = one === undefined ? [] : [one] } = details ?? {};
  return (all as string[]).join(' ') || undefined;
}

/** With its first chunk made, so that what cannot begin is refused like anything else. */
async function begun({ chunks, ...download }: Download): Promise<Download> {
  const iterator = chunks[Symbol.asyncIterator]();
  const first = await iterator.next();
  async function* all() {
    if (!first.done) yield first.value;
    yield* { [Symbol.asyncIterator]: () => iterator };
  }
  return { ...download, chunks: all() };
}

const NOTHING = z.strictObject({});

/** In the header of the W3C trace context. */
const TRACE_ID = /^[0-9a-f]{2}-([0-9a-f]{32})-/;

/** What the audit will say about a request, gathered on its way. */
class Trail {
  input: Partial<Input>;
  readonly subject: Subject = {};
  private readonly startedAt = performance.now();

  constructor(
    private readonly route: Route,
    private readonly request: FastifyRequest,
  ) {
    this.input = { params: { ...(request.params as object) }, query: { ...(request.query as object) } };
  }

  toEntry(error?: AppError): AuditEntry {
    const { method, path } = this.route;
    const { caller, id, ip, headers } = this.request;
    const { params, query, body } = this.input;
    return {
      event: 'call',
      tool: `${path.split('/')[1]} ${method} ${path}`,
      arguments: { ...params, ...query, ...body },
      ...(caller && actorOf(caller)),
      ...this.subject,
      result: resultOf(error),
      code: error?.code,
      durationMs: Math.round(performance.now() - this.startedAt),
      requestId: id,
      traceId: TRACE_ID.exec(String(headers.traceparent))?.[1],
      ip,
      userAgent: headers['user-agent'],
    };
  }
}

function unaudited(cause: unknown): never {
  log.error({ err: cause }, 'a request could not be audited');
  throw new AppError('unavailable', 'The request could not be audited, so it was not done. Try again later.');
}

/** Errors: `not_found` for a path that nothing can have, `unsupported_media_type`, `invalid_arguments` with every fault. */
function readInput(route: Route, request: FastifyRequest): Input {
  const params = route.params?.safeParse(request.params);
  if (params && !params.success) throw notFound();
  return {
    params: params?.data ?? {},
    query: parsed(route.query, request.query),
    body: parsed(route.body, bodyOf(request.body, request.headers['content-type'])),
  };
}

function bodyOf(bytes: unknown, contentType = ''): unknown {
  if (!Buffer.isBuffer(bytes) || bytes.length === 0) return {};
  if (!/^application\/json *(;|$)/i.test(contentType))
    throw new AppError('unsupported_media_type', 'Send a body as Content-Type: application/json.');
  const json = parseJson(bytes);
  if (!json)
    throw new AppError(
      'invalid_arguments',
      'The body must be JSON in UTF-8, nested no deeper than 64 levels.',
    );
  return json.value;
}

function parsed(
  schema: z.ZodType<Record<string, unknown>> | undefined,
  value: unknown,
): Record<string, unknown> {
  const result = (schema ?? NOTHING).safeParse(value);
  if (result.success) return result.data;
  const faults = result.error.issues
    .slice(0, 10)
    .map(({ path, message }) => ({ at: path.join('.'), message }));
  const message = faults.map(({ at, message }) => (at ? `${at}: ${message}` : message)).join('; ');
  throw new AppError('invalid_arguments', redactText(message), { faults });
}
