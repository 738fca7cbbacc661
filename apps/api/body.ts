import { isUtf8 } from 'node:buffer';
import type { FastifyInstance } from 'fastify';

/** Larger bodies are refused while they come in. Well above what any tool takes, so that a tool can say what is too long. */
export const BODY_LIMIT = 4 * 1024 * 1024;
/** Deeper ones would exhaust the stack of whoever walks through them. */
const NESTING_LIMIT = 64;

declare module 'fastify' {
  interface FastifyRequest {
    /** Runs while a body comes in; a route that takes longer over it clears it and has limits of its own. */
    bodyDeadline?: NodeJS.Timeout;
  }
}

/** A client that dribbles its body must not hold a socket for ever. */
export function installBodyDeadline(server: FastifyInstance, withinMs: number): void {
  server.decorateRequest('bodyDeadline');
  server.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request;
    const { 'content-length': length, 'transfer-encoding': encoding } = raw.headers;
    if (encoding !== undefined || (length !== undefined && length !== '0')) {
      const timer = setTimeout(() => raw.destroy(), withinMs).unref();
      const clear = () => clearTimeout(timer);
      raw.once('end', clear).once('close', clear);
      request.bodyDeadline = timer;
    }
    done();
  });
}

/** Bodies stay bytes until their route reads them: what is not UTF-8 must not be replaced silently. */
export function installBodyParser(server: FastifyInstance): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: BODY_LIMIT }, (_request, body, done) =>
    done(null, body),
  );
}

/** The JSON in a body, or undefined when it is not UTF-8, not JSON, or nested beyond reason. */
export function parseJson(body: Buffer): { value: unknown } | undefined {
  if (!isUtf8(body)) return undefined;
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    return isDeeper(value, NESTING_LIMIT) ? undefined : { value };
  } catch {
    return undefined;
  }
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((item) => isDeeper(item, levels - 1));
}
