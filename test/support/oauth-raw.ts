import { createHash, createPublicKey, randomBytes, verify, type JsonWebKey } from 'node:crypto';
import { Browser } from './oauth.js';

export const CALLBACK = 'http://127.0.0.1:9/callback';

export interface Answer {
  status: number;
  headers: Headers;
  body: Record<string, unknown>;
}

export interface Tokens {
  access_token: string;
  refresh_token: string;
  /** With the scope `openid`. */
  id_token: string;
  scope: string;
}

/** The header (0) or the claims (1) of a token that is signed. */
export const partOf = (token: string, part: 0 | 1) =>
  JSON.parse(Buffer.from(token.split('.')[part]!, 'base64url').toString()) as Record<string, string>;

export interface RawOptions {
  scope?: string;
  /** Of the request for authorization: a value of undefined leaves one out. */
  params?: Record<string, string | undefined>;
  narrow?: (fields: URLSearchParams) => void;
}

/** OAuth by hand, to do what no client would. */
export class RawOauth {
  readonly verifier = randomBytes(32).toString('base64url');
  clientId = '';

  constructor(readonly origin: string) {}

  async post(
    path: string,
    fields: Record<string, string>,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    return this.send(path, new URLSearchParams(fields).toString(), {
      'content-type': 'application/x-www-form-urlencoded',
      ...headers,
    });
  }

  async send(path: string, body: string, headers: Record<string, string>): Promise<Answer> {
    const response = await fetch(this.origin + path, { method: 'POST', headers, body });
    const text = await response.text();
    const type = response.headers.get('content-type') ?? '';
    const [, event] = /^data: (\{.*)$/m.exec(text) ?? [];
    const json = type.startsWith('application/json') ? text : event;
    return {
      status: response.status,
      headers: response.headers,
      body: (json === undefined ? { text } : JSON.parse(json)) as Record<string, unknown>,
    };
  }

  async register(metadata: Record<string, unknown> = {}): Promise<Answer> {
    const body = {
      client_name: 'Raw',
      redirect_uris: [CALLBACK],
      grant_types: ['authorization_code', 'refresh_token'],
      ...metadata,
    };
    const answer = await this.send('/oauth/register', JSON.stringify(body), {
      'content-type': 'application/json',
    });
    this.clientId = String(answer.body.client_id);
    return answer;
  }

  authorizeUrl({ scope = 'vms:read account:read', params = {} }: RawOptions = {}): URL {
    const url = new URL('/oauth/authorize', this.origin);
    const all = {
      client_id: this.clientId,
      response_type: 'code',
      redirect_uri: CALLBACK,
      code_challenge: createHash('sha256').update(this.verifier).digest('base64url'),
      code_challenge_method: 'S256',
      resource: `${this.origin}/mcp`,
      state: 'a-state',
      scope,
      ...params,
    };
    for (const [name, value] of Object.entries(all))
      if (value !== undefined) url.searchParams.set(name, value);
    return url;
  }

  /** A code that the person has allowed. */
  async code(person: { email: string; password: string }, options: RawOptions = {}): Promise<string> {
    const back = await new Browser([this.origin]).allow(this.authorizeUrl(options), person, options.narrow);
    const code = back.searchParams.get('code');
    if (code === null) throw new Error(`no code: ${back.href}`);
    return code;
  }

  exchange(code: string, fields: Record<string, string> = {}): Promise<Answer> {
    return this.post('/oauth/token', {
      grant_type: 'authorization_code',
      client_id: this.clientId,
      redirect_uri: CALLBACK,
      code_verifier: this.verifier,
      code,
      ...fields,
    });
  }

  refresh(token: string, fields: Record<string, string> = {}): Promise<Answer> {
    return this.post('/oauth/token', {
      grant_type: 'refresh_token',
      client_id: this.clientId,
      refresh_token: token,
      ...fields,
    });
  }

  async tokens(person: { email: string; password: string }, options: RawOptions = {}): Promise<Tokens> {
    if (this.clientId === '') await this.register();
    const { status, body } = await this.exchange(await this.code(person, options));
    if (status !== 200) throw new Error(`no tokens: ${JSON.stringify(body)}`);
    return body as unknown as Tokens;
  }

  /** Whom an ID token is about, by a key that is known now; undefined when there is no such key or it has not signed it. */
  async subjectOf(token: string): Promise<string | undefined> {
    const { keys } = (await (await fetch(`${this.origin}/.well-known/jwks.json`)).json()) as {
      keys: (JsonWebKey & { kid: string })[];
    };
    const { alg, kid } = partOf(token, 0);
    const key = keys.find((one) => one.kid === kid);
    if (!key || alg !== 'RS256') return undefined;
    const [, signed, signature] = /^(.+)\.(.+)$/.exec(token)!;
    const by = createPublicKey({ key, format: 'jwk' });
    const isSigned = verify('RSA-SHA256', Buffer.from(signed!), by, Buffer.from(signature!, 'base64url'));
    const { iss, sub } = partOf(token, 1);
    return isSigned && iss === this.origin ? sub : undefined;
  }

  /** A call of a tool by hand. */
  call(token: string, name = 'whoami', args = {}): Promise<Answer> {
    const message = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } };
    return this.send('/mcp', JSON.stringify(message), {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    });
  }
}
