import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';

const swagger = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));

const SCRIPT = 'text/javascript; charset=utf-8';
const FILES: Record<string, { path: string; type: string }> = {
  'swagger-ui.css': { path: join(swagger, 'swagger-ui.css'), type: 'text/css; charset=utf-8' },
  'swagger-ui-bundle.js': { path: join(swagger, 'swagger-ui-bundle.js'), type: SCRIPT },
  'page.js': { path: fileURLToPath(new URL('./docs-page.js', import.meta.url)), type: SCRIPT },
};

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Longhaul: administration</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/admin/docs/swagger-ui.css">
<form class="swagger-ui" id="form"><div class="wrapper"><div class="information-container">
<h1 class="title">Longhaul: administration</h1>
<p><label for="token">Developer token of a member of staff; it stays in this page only</label></p>
<p><input id="token" type="password" autocomplete="off" required> <button class="btn">Show</button></p>
<p id="fault" role="alert"></p>
</div></div></form>
<div id="docs"></div>
<script src="/admin/docs/swagger-ui-bundle.js"></script>
<script type="module" src="/admin/docs/page.js"></script>
</html>
`;

/**
 * A page to read and try the routes with. It is the same for everybody and knows nothing: what there is it asks of
 * /admin/openapi.json with the token that is typed into it.
 */
export function installDocs(server: FastifyInstance): void {
  server.get('/admin/docs', (_request, reply) =>
    reply.headers(HEADERS).type('text/html; charset=utf-8').send(PAGE),
  );
  for (const [name, { path, type }] of Object.entries(FILES)) {
    server.get(`/admin/docs/${name}`, (_request, reply) =>
      reply.headers(HEADERS).header('cache-control', 'no-cache').type(type).send(createReadStream(path)),
    );
  }
}
