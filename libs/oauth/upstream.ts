import { isIP } from 'node:net';
import { AppError } from '@longhaul/errors';
import * as client from 'openid-client';
import type { OauthConfig } from './config.js';
import type { UpstreamIdentity } from './users.js';

/** What binds an answer of the provider to the browser that was sent there. */
export interface UpstreamRequest {
  state: string;
  nonce: string;
  verifier: string;
}

const TIMEOUT_SECONDS = 10;

/** The OpenID Connect provider that stands in for passwords. */
export class Upstream {
  private discovered?: Promise<client.Configuration>;

  constructor(
    private readonly config: OauthConfig & { OIDC_ISSUER: string },
    private readonly redirectUri: string,
  ) {}

  /** Where to send the browser. Errors: `unavailable` when the provider does not answer. */
  async start({ state, nonce, verifier }: UpstreamRequest): Promise<string> {
    const url = client.buildAuthorizationUrl(await this.discover(), {
      redirect_uri: this.redirectUri,
      scope: this.config.OIDC_SCOPES.join(' '),
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
    });
    return url.href;
  }

  /** Who has logged in, from the query that came back. Errors: `unauthenticated`, `unavailable`. */
  async finish(query: string, { state, nonce, verifier }: UpstreamRequest): Promise<UpstreamIdentity> {
    const config = await this.discover();
    try {
      const tokens = await client.authorizationCodeGrant(config, new URL(`${this.redirectUri}?${query}`), {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
        idTokenExpected: true,
      });
      const { iss: issuer, sub: subject, ...claims } = tokens.claims()!;
      const told = typeof claims.email === 'string' ? claims : await this.userinfo(config, tokens, subject);
      return {
        issuer,
        subject,
        email: typeof told.email === 'string' ? told.email : undefined,
        emailVerified: told.email_verified === true,
      };
    } catch (cause) {
      throw new AppError('unauthenticated', 'Your provider did not log you in.', undefined, { cause });
    }
  }

  private async userinfo(
    config: client.Configuration,
    tokens: client.TokenEndpointResponse,
    subject: string,
  ): Promise<{ email?: unknown; email_verified?: unknown }> {
    if (!config.serverMetadata().userinfo_endpoint) return {};
    return client.fetchUserInfo(config, tokens.access_token, subject);
  }

  private discover(): Promise<client.Configuration> {
    this.discovered ??= this.ask().catch((cause: unknown) => {
      this.discovered = undefined;
      throw new AppError('unavailable', 'The provider that logs you in does not answer.', undefined, {
        cause,
      });
    });
    return this.discovered;
  }

  private ask(): Promise<client.Configuration> {
    const { OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET: secret } = this.config;
    const issuer = new URL(OIDC_ISSUER);
    return client.discovery(
      issuer,
      OIDC_CLIENT_ID,
      undefined,
      secret === undefined ? client.None() : client.ClientSecretBasic(secret),
      { timeout: TIMEOUT_SECONDS, ...(isLoopback(issuer) && { execute: [client.allowInsecureRequests] }) },
    );
  }
}

/** Only there nobody can listen in on http. */
const isLoopback = ({ hostname }: URL) =>
  hostname === 'localhost' || hostname === '[::1]' || (isIP(hostname) === 4 && hostname.startsWith('127.'));
