import { createHmac } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Inject, Injectable } from '@nestjs/common';
import { Rates, SCOPES } from '@longhaul/access';
import { CONFIG } from '@longhaul/config';
import { Database, Prisma, batched } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import { createLogger } from '@longhaul/telemetry';
import type Provider from 'oidc-provider';
import type { KoaContextWithOIDC } from 'oidc-provider';
import type { OauthConfig } from './config.js';
import { hashId } from './ids.js';
import { signingKeys } from './keys.js';
import { Limits } from './limits.js';
import { Upstream } from './upstream.js';

/** What an access token says. */
export interface VerifiedToken {
  grantId: string;
  scopes: string[];
  expiresAt: Date;
}

interface Built {
  provider: Provider;
  kids: string;
  checkedAt: number;
}

/** How long a replica may not know of new keys; what it signs meanwhile is good on all others. */
const KEYS_MS = 60_000;
/** Tokens that one statement looks up, when many requests come together. */
const VERIFIED_AT_ONCE = 100;

/** The authorization server, and what the resource server has to know of it. */
@Injectable()
export class Oauth {
  readonly limits: Limits;
  /** Whoever serves the pages says how; until then an error is plain text. */
  errorPage = (ctx: KoaContextWithOIDC, error: string, description?: string): void => {
    ctx.body = `${error}: ${description ?? ''}`;
  };
  /** Told when a client has ended a grant (`revocation`), or used something twice and so ended it (`token`). */
  grantRevoked = (_grantId: string, _route: string): void => undefined;
  private readonly log = createLogger('oauth');
  private readonly verify = batched((tokens: string[]) => this.verifyAll(tokens), VERIFIED_AT_ONCE);
  private built?: Promise<Built>;
  private shared?: Promise<Buffer>;
  private upstreamProvider?: Upstream;
  private listening?: string;

  constructor(
    readonly db: Database,
    private readonly secrets: StoredSecrets,
    @Inject(CONFIG) readonly config: OauthConfig,
    rates: Rates,
  ) {
    this.limits = new Limits(rates, config.OAUTH_REGISTRATIONS);
  }

  /** Where clients reach us, unless PUBLIC_URL says so: known once the server listens. */
  listensOn(port: number, scheme: 'http' | 'https' = 'http'): void {
    this.listening = `${scheme}://127.0.0.1:${port}`;
  }

  get origin(): string {
    const origin = this.config.PUBLIC_URL ?? this.listening;
    if (origin === undefined) throw new Error('the server does not listen yet');
    return origin;
  }

  /** The audience of every access token. */
  get resource(): string {
    return `${this.origin}/mcp`;
  }

  /** A challenge for a WWW-Authenticate header; without an error it only says where to begin. */
  challenge(error?: 'invalid_token' | 'insufficient_scope', scopes: readonly string[] = []): string {
    const parts = {
      ...(error && { error }),
      ...(scopes.length > 0 && { scope: scopes.join(' ') }),
      resource_metadata: `${this.origin}/.well-known/oauth-protected-resource/mcp`,
    };
    return `Bearer ${Object.entries(parts)
      .map(([name, value]) => `${name}="${value}"`)
      .join(', ')}`;
  }

  /** As RFC 9728 has it. */
  resourceMetadata() {
    return {
      resource: this.resource,
      resource_name: 'Longhaul',
      authorization_servers: [this.origin],
      scopes_supported: SCOPES,
      bearer_methods_supported: ['header'],
    };
  }

  /**
   * What an access token says, looked up every time. It is undefined when we have not issued it for this resource, or it has
   * expired or been revoked by itself; whether its grant holds is for the caller to look up.
   */
  verifyAccessToken(token: string): Promise<VerifiedToken | undefined> {
    return this.verify(token);
  }

  /** Answers a request to one of the endpoints of oidc-provider; what it says about host and scheme is not believed. */
  async handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { host, protocol } = new URL(this.origin);
    req.headers.host = host;
    req.headers['x-forwarded-host'] = host;
    req.headers['x-forwarded-proto'] = protocol.slice(0, -1);
    const provider = await this.provider();
    await provider.callback()(req, res);
  }

  /** Made anew when keys have been rotated. */
  async provider(): Promise<Provider> {
    const built = await (this.built ??= this.build());
    if (performance.now() - built.checkedAt < KEYS_MS) return built.provider;
    this.built = this.build(built).catch((error: unknown) => {
      this.log.error({ err: error }, 'the signing keys could not be read');
      return { ...built, checkedAt: performance.now() };
    });
    return (await this.built).provider;
  }

  /** Text that only we can make, for one purpose and about one thing; the same on all replicas. */
  async mark(purpose: string, about: string): Promise<string> {
    return createHmac('sha256', await this.secret())
      .update(`${purpose}\0${about}`)
      .digest('base64url');
  }

  /** Undefined where people log in with passwords. */
  get upstream(): Upstream | undefined {
    const { OIDC_ISSUER } = this.config;
    if (OIDC_ISSUER === undefined) return undefined;
    return (this.upstreamProvider ??= new Upstream(
      { ...this.config, OIDC_ISSUER },
      `${this.origin}/oauth/callback`,
    ));
  }

  private secret(): Promise<Buffer> {
    return (this.shared ??= this.secrets.signingKey('oauth').catch((error: unknown) => {
      this.shared = undefined;
      throw error;
    }));
  }

  private async build(before?: Built): Promise<Built> {
    try {
      const [keys, secret] = await Promise.all([signingKeys(this.db, this.secrets), this.secret()]);
      const kids = keys.map(({ n }) => n).join();
      const checkedAt = performance.now();
      if (before?.kids === kids) return { ...before, checkedAt };
      // Most servers are reached by developer tokens only: they need not load it.
      const { makeProvider } = await import('./provider.js');
      const provider = makeProvider({
        db: this.db,
        log: this.log,
        origin: this.origin,
        resource: this.resource,
        keys,
        secret,
        registration: this.config.OAUTH_REGISTRATIONS > 0,
        privateClients: this.config.OAUTH_PRIVATE_CLIENTS,
        mayFetch: async () => (await this.limits.take(['fetchAll', ''])) === 0,
        grantRevoked: (grantId, route) => this.grantRevoked(grantId, route),
        errorPage: (ctx, error, description) => this.errorPage(ctx, error, description),
      });
      return { provider, kids, checkedAt };
    } catch (error) {
      if (!before) this.built = undefined;
      throw error;
    }
  }

  private async verifyAll(tokens: string[]): Promise<(VerifiedToken | undefined)[]> {
    const ids = tokens.map(hashId);
    const rows = await this.db.rows<VerifiedToken & { id: string }>(Prisma.sql`
      SELECT id, grant_id AS "grantId", string_to_array(coalesce(payload->>'scope', ''), ' ') AS scopes,
        expires_at AS "expiresAt"
      FROM oauth_state
      WHERE model IN ('AccessToken', 'ClientCredentials') AND id = ANY(${ids}) AND expires_at > now()
        AND payload->>'aud' = ${this.resource} AND grant_id IS NOT NULL`);
    const found = new Map(rows.map(({ id, ...token }) => [id, token]));
    return ids.map((id) => found.get(id));
  }
}
