import { isUtf8 } from 'node:buffer';
import type { FastifyInstance } from 'fastify';

/** Larger bodies are refused while they come in. Well above what any tool takes, so that a tool can say what is too long. */
export const BODY_LIMIT = 4 * 1024 * 1024;

/** Bodies stay bytes until their route reads them: what is not UTF-8 must not be replaced silently. */
export function installBodyParser(server: FastifyInstance): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: BODY_LIMIT }, (_request, body, done) =>
    done(null, body),
  );
}

/** The JSON in a body, or undefined when it is not UTF-8 or not JSON. */
export function parseJson(body: Buffer): { value: unknown } | undefined {
  if (!isUtf8(body)) return undefined;
  try {
    return { value: JSON.parse(body.toString('utf8')) as unknown };
  } catch {
    return undefined;
  }
}
