import { randomUUID } from 'node:crypto';
import { actorOf, requireOpen, type Access, type Caller } from '@longhaul/access';
import type { Audit } from '@longhaul/audit';
import { AppError, toAppError, type ErrorCode } from '@longhaul/errors';
import type { Oauth } from '@longhaul/oauth';
import { createLogger } from '@longhaul/telemetry';
import {
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  validateHostHeader,
  validateOriginHeader,
} from '@modelcontextprotocol/server';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { CONTENT_ROUTE } from './artifacts/routes.js';
import type { ApiConfig } from './config.js';
import { callerOf } from './credentials.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** There on every route that asks for credentials. */
    caller?: Caller;
  }
}

/** What the gate needs of the app. */
export interface GateServices {
  access: Access;
  audit: Audit;
  oauth: Oauth;
}

const REQUEST_ID = /^[\w.:-]{1,64}$/;

const MCP_ROUTE = /^\/mcp(\/|$)/;
/** Whoever asks there has named the address that they found; the answers are nobody's secret. */
const ANY_HOST = new Set([CONTENT_ROUTE, '/ping', '/healthz', '/readyz']);

const log = createLogger('http');

/** Takes a request id that the client or a proxy has given, if it is a sane one. */
export function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

/**
 * What every request passes before its body is read: it is addressed to us and not sent by a stranger's web page (DNS
 * rebinding), and below /mcp it carries credentials that hold, while nobody has switched MCP off.
 */
export function installGate(
  server: FastifyInstance,
  { access, audit, oauth }: GateServices,
  config: ApiConfig,
): void {
  const { PUBLIC_URL } = config;
  const ours = PUBLIC_URL === undefined ? [] : [new URL(PUBLIC_URL).hostname];
  const hosts = [...localhostAllowedHostnames(), ...config.ALLOWED_HOSTS, ...ours];
  const origins = new Set([...config.ALLOWED_ORIGINS, PUBLIC_URL]);
  const localOrigins = localhostAllowedOrigins();

  server.decorateRequest('caller');
  server.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    const { host, origin } = request.headers;
    if (!ANY_HOST.has(request.routeOptions.url ?? '') && !validateHostHeader(host, hosts).ok) {
      return refuse(
        reply,
        403,
        'forbidden_host',
        'This Host is not served here. Its operator can add it to ALLOWED_HOSTS.',
      );
    }
    if (!validateOriginHeader(origin, localOrigins).ok && !origins.has(String(origin))) {
      return refuse(
        reply,
        403,
        'forbidden_origin',
        'Pages of this Origin may not call. The operator can add it to ALLOWED_ORIGINS.',
      );
    }
    if (!MCP_ROUTE.test(request.routeOptions.url ?? '')) return;
    await authenticate(access, oauth, request, reply);
    if (request.caller) await admit(request.caller, audit, request, reply);
  });
}

async function authenticate(
  access: Access,
  oauth: Oauth,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  try {
    request.caller = await callerOf(request.headers.authorization, access, (token) =>
      oauth.verifyAccessToken(token),
    );
  } catch (thrown) {
    log.error({ err: thrown, requestId: request.id }, 'cannot authenticate');
    return refuse(reply, 503, 'unavailable', 'The credentials could not be checked. Try again later.');
  }
  if (!request.caller) {
    const isMissing = request.headers.authorization === undefined;
    reply.header('www-authenticate', oauth.challenge(isMissing ? undefined : 'invalid_token'));
    return refuse(
      reply,
      401,
      'unauthenticated',
      'Send Authorization: Bearer with a token that exists and has not been revoked.',
    );
  }
}

/** For everybody or for this account all may be closed. That is audited like the refusal of a call. */
async function admit(
  caller: Caller,
  audit: Audit,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  try {
    requireOpen(caller);
  } catch (thrown) {
    const { code, message, details } = toAppError(thrown);
    const { id: requestId, ip, method, headers } = request;
    const entry = { event: 'call', tool: `${method} /mcp`, result: 'refused', code, requestId, ip } as const;
    await audit
      .record({ ...entry, ...actorOf(caller), userAgent: headers['user-agent'] })
      .catch((error: unknown) => log.error({ err: error, requestId }, 'a refusal could not be audited'));
    return refuse(reply, code === 'switched_off' ? 503 : 403, code, message, details);
  }
}

async function refuse(
  reply: FastifyReply,
  status: number,
  code: ErrorCode,
  message: string,
  details?: Record<string, unknown>,
): Promise<void> {
  await reply.code(status).send(new AppError(code, message, details).toBody());
}
