import type { Audit } from '@longhaul/audit';
import type { Oauth } from '@longhaul/oauth';
import { parseId } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { pageHeaders } from './html.js';
import { Interactions, type InteractionRequest } from './interactions.js';
import { errorPage } from './pages.js';

/** Served by oidc-provider, which reads the bodies itself, 56 KiB at most. */
const PROVIDER_ROUTES = [
  '/.well-known/oauth-authorization-server',
  '/.well-known/openid-configuration',
  '/.well-known/jwks.json',
  '/oauth/authorize',
  '/oauth/authorize/:uid',
  '/oauth/session/end/confirm',
  '/oauth/token',
  '/oauth/revoke',
  '/oauth/introspect',
];

/** What may be asked so often only. */
const LIMITED = new Map([
  ['/oauth/authorize', [['authorize', true]]],
  [
    '/oauth/register',
    [
      ['register', true],
      ['registerAll', false],
    ],
  ],
] as const);

const NOT_TEXT = 'The request of your app holds characters that are not text.';

const log = createLogger('oauth');

/** Adds all routes of the authorization server, and the metadata of the resource that it is for. */
export function mountOauth(server: FastifyInstance, oauth: Oauth, audit: Audit): void {
  oauth.errorPage = (ctx, error, description) => {
    ctx.set(pageHeaders());
    ctx.body = errorPage(
      'This does not work',
      `${description ?? 'The request of your app is not valid.'} (${error})`,
    );
  };

  for (const path of ['', '/mcp'])
    server.get(`/.well-known/oauth-protected-resource${path}`, async (_request, reply) => {
      await reply.header('access-control-allow-origin', '*').send(oauth.resourceMetadata());
    });

  oauth.grantRevoked = (grantId, route) => {
    void auditRevocation(oauth, audit, grantId, route).catch((error: unknown) =>
      log.error({ err: error, grantId }, 'the end of a grant could not be audited'),
    );
  };

  const interactions = new Interactions(oauth, audit);
  const uid = '/oauth/interaction/:uid';
  server.get(uid, (request: InteractionRequest, reply) => interactions.show(request, reply));
  server.post(`${uid}/login`, (request: InteractionRequest, reply) => interactions.login(request, reply));
  server.post(`${uid}/consent`, (request: InteractionRequest, reply) => interactions.consent(request, reply));
  server.get(`${uid}/upstream`, (request: InteractionRequest, reply) =>
    interactions.upstream(request, reply),
  );
  server.get('/oauth/callback', (request, reply) => interactions.fromUpstream(request, reply));

  void server.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null));
    const registration = oauth.config.OAUTH_REGISTRATIONS > 0 ? ['/oauth/register'] : [];
    for (const route of [...PROVIDER_ROUTES, ...registration])
      scope.all(route, (request, reply) => serve(oauth, route, request, reply));
  });
}

/** What a client does at the token endpoint is refused for a reason: then something stolen was used, by it or before it. */
async function auditRevocation({ db }: Oauth, audit: Audit, id: string, route: string): Promise<void> {
  const grant = await db.oauthGrant.findUnique({ where: { id } });
  await audit.record({
    event: 'call',
    tool: `oauth/${route}`,
    userId: grant?.userId,
    clientId: grant?.clientId,
    tokenId: grant && parseId(grant.id),
    result: route === 'revocation' ? 'ok' : 'refused',
    code: route === 'revocation' ? null : 'unauthenticated',
  });
}

async function serve(
  oauth: Oauth,
  route: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const limits = LIMITED.get(route as '/oauth/authorize') ?? [];
  const wait = await oauth.limits.take(
    ...limits.map(([limit, each]): Parameters<Oauth['limits']['take']>[0] => [limit, each ? request.ip : '']),
  );
  if (wait > 0) {
    const body = { error: 'temporarily_unavailable', error_description: `Try again in ${wait} seconds.` };
    await reply.code(429).header('retry-after', wait).send(body);
    return;
  }
  // It would go on into state that PostgreSQL has to store, which takes no NUL.
  if (request.raw.url?.includes('%00')) {
    await reply.code(400).headers(pageHeaders()).send(errorPage('This does not work', NOT_TEXT));
    return;
  }
  reply.hijack();
  reply.raw.setHeader('x-request-id', request.id);
  await oauth.handle(request.raw, reply.raw);
}
