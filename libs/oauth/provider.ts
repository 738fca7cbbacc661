import { timingSafeEqual } from 'node:crypto';
import { SCOPES, type Scope } from '@longhaul/access';
import type { Database } from '@longhaul/persistence';
import type { Logger } from '@longhaul/telemetry';
import Provider, {
  errors,
  interactionPolicy,
  type ClientMetadata,
  type Configuration,
  type JWK,
  type KoaContextWithOIDC,
} from 'oidc-provider';
import { curateClient } from './clients.js';
import { hashId } from './ids.js';
import { DEFAULT_SCOPES } from './scopes.js';
import { OauthState } from './state.js';

const HOUR = 3600;
const DAY = 24 * HOUR;
/** Of everything that comes from one consent. */
const FAMILY_SECONDS = 30 * DAY;

export interface ProviderOptions {
  db: Database;
  log: Logger;
  /** Scheme, host and port under which clients know us. */
  origin: string;
  /** The one audience of access tokens. */
  resource: string;
  keys: JWK[];
  secret: Buffer;
  /** Whether clients may register themselves. */
  registration: boolean;
  /** Whether metadata documents may come from private addresses. */
  privateClients: boolean;
  /** Whether one more metadata document may be fetched now. */
  mayFetch(): Promise<boolean>;
  grantRevoked(grantId: string, route: string): void;
  /** The page for a person whose browser cannot be sent back to the client. */
  errorPage(ctx: KoaContextWithOIDC, error: string, description: string | undefined): void;
}

/** oidc-provider as an authorization server of OAuth 2.1 for one resource: what is not needed for that is off. */
export function makeProvider(options: ProviderOptions): Provider {
  const { log, origin } = options;
  const provider = new Provider(origin, configure(options));
  // TLS may end before us; handle() says what the client has seen.
  provider.proxy = true;
  provider.on('server_error', (_ctx, error: Error) => log.error({ err: error }, 'OAuth failed'));
  provider.on('grant.revoked', ({ oidc }, grantId) => options.grantRevoked(grantId, oidc.route));
  // Koa would print what goes wrong with a connection.
  provider.silent = true;
  // Secrets of machines are stored by their hash.
  provider.Client.prototype.compareClientSecret = function (given: string) {
    const stored = Buffer.from(this.clientSecret ?? '');
    const hashed = Buffer.from(hashId(given));
    return stored.length === hashed.length && timingSafeEqual(stored, hashed);
  };
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path.startsWith('/.well-known/') && ctx.body && 'issuer' in ctx.body)
      Object.assign(ctx.body, { scopes_supported: ['openid', 'offline_access', ...SCOPES] });
  });
  return provider;
}

function configure(options: ProviderOptions): Configuration {
  const { db, origin, resource } = options;
  const cookie = {
    httpOnly: true,
    sameSite: 'lax',
    signed: true,
    secure: origin.startsWith('https:'),
  } as const;
  return {
    adapter: (model) => new OauthState(db, model, (grantId) => options.grantRevoked(grantId, 'token')),
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post'],
    clientBasedCORS: () => false,
    clockTolerance: 5,
    cookies: { keys: [options.secret.toString('base64url')], long: cookie, short: cookie },
    expiresWithSession: async () => false,
    extraClientMetadata: {
      properties: ['curated'],
      validator: (ctx, _property, _value, metadata) =>
        curateClient(ctx, metadata as ClientMetadata & Record<string, unknown>),
    },
    features: {
      clientCredentials: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: 'draft-02', allowFetch: () => options.mayFetch() },
      devInteractions: { enabled: false },
      dPoP: { enabled: false },
      introspection: { enabled: true, allowedPolicy: isOwnToken },
      pushedAuthorizationRequests: { enabled: false },
      registration: { enabled: options.registration, issueRegistrationAccessToken: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => resource,
        useGrantedResource: async () => true,
        getResourceServerInfo: async (ctx, indicator) => {
          if (indicator !== resource) throw new errors.InvalidTarget();
          const scope = (await requestScopes(ctx, db)).join(' ');
          return { scope, audience: resource, accessTokenTTL: HOUR, accessTokenFormat: 'opaque' };
        },
      },
      revocation: { enabled: true, allowedPolicy: isOwnToken },
      rpInitiatedLogout: { enabled: false },
      userinfo: { enabled: false },
    },
    fetch: (url, init) => {
      const { dispatcher, ...rest } = (init ?? {}) as RequestInit & { dispatcher?: unknown };
      // The dispatcher is what refuses private addresses, after the name has been resolved.
      const guarded = options.privateClients ? rest : { ...rest, dispatcher };
      return fetch(url, guarded as RequestInit);
    },
    findAccount: (_ctx, sub) => findAccount(db, sub),
    interactions: {
      policy: loginPolicy(),
      url: (_ctx, { uid }) => `/oauth/interaction/${uid}`,
    },
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    jwks: { keys: options.keys },
    // Every authorization asks the person: a client that names itself must not live on what another one was given.
    loadExistingGrant: async (ctx) => {
      const grantId = ctx.oidc.result?.consent?.grantId;
      return grantId === undefined ? undefined : ctx.oidc.provider.Grant.find(grantId);
    },
    pkce: { required: () => true },
    renderError: (ctx, { error, error_description: description }) =>
      options.errorPage(ctx, error, description),
    responseTypes: ['code'],
    revokeGrantPolicy: () => true,
    rotateRefreshToken: true,
    routes: {
      authorization: '/oauth/authorize',
      end_session: '/oauth/session/end',
      introspection: '/oauth/introspect',
      jwks: '/.well-known/jwks.json',
      registration: '/oauth/register',
      revocation: '/oauth/revoke',
      token: '/oauth/token',
    },
    scopes: ['openid', 'offline_access'],
    ttl: {
      AccessToken: HOUR,
      AuthorizationCode: 60,
      ClientCredentials: HOUR,
      Grant: FAMILY_SECONDS,
      IdToken: HOUR,
      Interaction: HOUR / 2,
      RefreshToken: (ctx) => {
        const { RotatedRefreshToken: before } = ctx.oidc.entities;
        return before ? before.remainingTTL : FAMILY_SECONDS;
      },
      Session: 8 * HOUR,
    },
  };
}

/**
 * The scopes that can be had now: of a machine those it was made with, else all. A request that names none of them is given
 * what fits.
 */
async function requestScopes(ctx: KoaContextWithOIDC, db: Database): Promise<readonly Scope[]> {
  const { client, params, route } = ctx.oidc;
  const isMachine = client?.grantTypeAllowed('client_credentials') ?? false;
  const scopes = isMachine ? await scopesOfMachine(db, client!.clientId) : SCOPES;
  if (params && (isMachine || route === 'authorization')) {
    const asked = typeof params.scope === 'string' ? params.scope.split(' ') : [];
    if (!asked.some((scope) => (SCOPES as readonly string[]).includes(scope)))
      params.scope = [...asked, ...(isMachine ? scopes : DEFAULT_SCOPES)].filter(Boolean).join(' ');
  }
  return scopes;
}

/** No client learns of, or ends, what another one holds. */
const isOwnToken = async (_ctx: unknown, client: { clientId: string }, token: { clientId?: string }) =>
  token.clientId === client.clientId;

async function scopesOfMachine(db: Database, clientId: string): Promise<Scope[]> {
  const grant = await db.oauthGrant.findUnique({ where: { id: clientId } });
  return (grant?.scopes ?? []) as Scope[];
}

async function findAccount(db: Database, sub: string) {
  const user = await db.user.findFirst({ where: { id: sub, standing: { not: 'suspended' } } });
  return user ? { accountId: sub, claims: async () => ({ sub }) } : undefined;
}

/** Who is remembered by the browser, but is gone or suspended by now, has to log in too. */
function loginPolicy() {
  const { Check, base } = interactionPolicy;
  const policy = base();
  policy
    .get('login')!
    .checks.add(
      new Check('no_account', 'the account is not there any more', ({ oidc }) =>
        oidc.session?.accountId !== undefined && !oidc.account
          ? Check.REQUEST_PROMPT
          : Check.NO_NEED_TO_PROMPT,
      ),
    );
  return policy;
}
