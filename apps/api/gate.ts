import { randomUUID } from 'node:crypto';
import { type Access, type Caller } from '@longhaul/access';
import { AppError, type ErrorCode } from '@longhaul/errors';
import { createLogger } from '@longhaul/telemetry';
import {
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  validateHostHeader,
  validateOriginHeader,
} from '@modelcontextprotocol/server';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ApiConfig } from './config.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Of the bearer token; there on every route that asks for one. */
    caller?: Caller;
  }
}

const REQUEST_ID = /^[\w.:-]{1,64}$/;
/** Longer than any token of ours. */
const BEARER = /^Bearer +([\w.~+/=-]{1,512}) *$/i;

const MCP_ROUTE = /^\/mcp(\/|$)/;

const log = createLogger('http');

/** Takes a request id that the client or a proxy has given, if it is a sane one. */
export function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

/**
 * What every request passes before its body is read: it is addressed to us and not sent by a stranger's web page (DNS
 * rebinding), and below /mcp it carries a token that holds.
 */
export function installGate(server: FastifyInstance, access: Access, config: ApiConfig): void {
  const hosts = [...localhostAllowedHostnames(), ...config.ALLOWED_HOSTS];
  const origins = new Set(config.ALLOWED_ORIGINS);

  server.decorateRequest('caller');
  server.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    const { host, origin, authorization } = request.headers;
    if (!validateHostHeader(host, hosts).ok) {
      return refuse(
        reply,
        403,
        'forbidden_host',
        'This Host is not served here. Its operator can add it to ALLOWED_HOSTS.',
      );
    }
    if (!validateOriginHeader(origin, localhostAllowedOrigins()).ok && !origins.has(String(origin))) {
      return refuse(
        reply,
        403,
        'forbidden_origin',
        'Pages of this Origin may not call. The operator can add it to ALLOWED_ORIGINS.',
      );
    }
    if (MCP_ROUTE.test(request.routeOptions.url ?? ''))
      return authenticate(access, authorization, request, reply);
  });
}

async function authenticate(
  access: Access,
  authorization: string | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const [, token] = BEARER.exec(authorization ?? '') ?? [];
  try {
    request.caller = token === undefined ? undefined : await access.authenticate(token);
  } catch (thrown) {
    log.error({ err: thrown, requestId: request.id }, 'cannot authenticate');
    return refuse(reply, 503, 'unavailable', 'The token could not be checked. Try again later.');
  }
  if (request.caller) return;
  reply.header('www-authenticate', authorization === undefined ? 'Bearer' : 'Bearer error="invalid_token"');
  return refuse(
    reply,
    401,
    'unauthenticated',
    'Send Authorization: Bearer with a token that exists and has not been revoked.',
  );
}

async function refuse(reply: FastifyReply, status: number, code: ErrorCode, message: string): Promise<void> {
  await reply.code(status).send(new AppError(code, message).toBody());
}
