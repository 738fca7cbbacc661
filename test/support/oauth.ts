import { hashPassword } from '@longhaul/access';
import type { Database } from '@longhaul/persistence';
import {
  Client,
  StreamableHTTPClientTransport,
  UnauthorizedError,
  type OAuthClientInformationMixed,
  type OAuthClientMetadata,
  type OAuthClientProvider,
  type OAuthDiscoveryState,
  type OAuthTokens,
} from '@modelcontextprotocol/client';
import { makeUser } from './database.js';

export const PASSWORD = 'correct horse battery';

/** A user as `makeUser` makes one, who can log in with PASSWORD. */
export async function makePerson(db: Database) {
  const { caller } = await makeUser(db);
  const passwordHash = await hashPassword(PASSWORD);
  await db.user.update({ where: { id: caller.userId }, data: { passwordHash } });
  return { ...caller, password: PASSWORD };
}

/** The official client's OAuth provider, with everything in memory; what a browser would open is kept in `asked`. */
export class MemoryProvider implements OAuthClientProvider {
  information?: OAuthClientInformationMixed;
  saved?: OAuthTokens;
  verifier = '';
  discovered?: OAuthDiscoveryState;
  asked?: URL;

  constructor(
    readonly redirectUrl: string,
    private readonly metadata: Partial<OAuthClientMetadata> = {},
    readonly clientMetadataUrl?: string,
  ) {}

  get clientMetadata(): OAuthClientMetadata {
    return {
      client_name: 'A test',
      redirect_uris: [this.redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      ...this.metadata,
    };
  }
  clientInformation = () => this.information;
  saveClientInformation = (information: OAuthClientInformationMixed) => void (this.information = information);
  tokens = () => this.saved;
  saveTokens = (tokens: OAuthTokens) => void (this.saved = tokens);
  redirectToAuthorization = (url: URL) => void (this.asked = url);
  saveCodeVerifier = (verifier: string) => void (this.verifier = verifier);
  codeVerifier = () => this.verifier;
  state = () => 'a-state';
  saveDiscoveryState = (found: OAuthDiscoveryState) => void (this.discovered = found);
  discoveryState = () => this.discovered;
}

/** Connects as a client does that a person has just been given the URL of; `grant` is what the person does in the browser. */
export async function connectByOauth(
  url: URL,
  provider: MemoryProvider,
  grant: (asked: URL) => Promise<URL>,
): Promise<Client> {
  const make = () => new Client({ name: 'oauth', version: '1' }, { versionNegotiation: { mode: 'auto' } });
  const transport = () => new StreamableHTTPClientTransport(url, { authProvider: provider });
  const first = transport();
  try {
    const client = make();
    await client.connect(first);
    return client;
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  const callback = await grant(provider.asked!);
  await first.finishAuth(callback.searchParams);
  const client = make();
  await client.connect(transport());
  return client;
}

interface Cookie {
  name: string;
  value: string;
  path: string;
}

export interface Page {
  url: URL;
  status: number;
  headers: Headers;
  text: string;
}

/** A browser without scripts and a person before it: cookies, redirects within the sites it is told of, forms. */
export class Browser {
  private cookies: Cookie[] = [];

  /** A redirect to any other origin is answered as it is. */
  constructor(private readonly origins: string[]) {}

  async open(target: string | URL, form?: URLSearchParams): Promise<Page> {
    let url = new URL(target);
    let body = form;
    for (let redirects = 0; redirects < 20; redirects++) {
      const response = await fetch(url, {
        method: body ? 'POST' : 'GET',
        redirect: 'manual',
        headers: {
          accept: 'text/html',
          cookie: this.cookiesFor(url),
          ...(body && { origin: url.origin, 'content-type': 'application/x-www-form-urlencoded' }),
        },
        ...(body && { body: body.toString() }),
      });
      response.headers.getSetCookie().forEach((line) => this.keep(line));
      const text = await response.text();
      const location = response.headers.get('location');
      if (location === null) return { url, status: response.status, headers: response.headers, text };
      url = new URL(location, url);
      body = undefined;
      if (!this.origins.includes(url.origin))
        return { url, status: response.status, headers: response.headers, text };
    }
    throw new Error('redirected too often');
  }

  /** Sends the form of a page with its fields as they are, changed by `fill`. */
  submit({ url, text }: Page, fill: (fields: URLSearchParams) => void): Promise<Page> {
    const [, action] = /<form\s[^>]*action="([^"]+)"/.exec(text) ?? [];
    if (action === undefined) throw new Error(`no form: ${text}`);
    const fields = new URLSearchParams();
    for (const [input] of text.matchAll(/<input\s[^>]*>/g)) {
      const of = (name: string) => new RegExp(` ${name}="([^"]*)"`).exec(input)?.[1];
      if (of('type') === 'checkbox' && !/ checked/.test(input)) continue;
      fields.append(of('name')!, of('value') ?? '');
    }
    fill(fields);
    return this.open(new URL(action, url), fields);
  }

  /** Logs in when asked to and allows all that is asked for; answers where the browser is sent in the end. */
  async allow(
    asked: URL,
    { email, password }: { email: string; password: string },
    narrow: (fields: URLSearchParams) => void = () => undefined,
  ): Promise<URL> {
    let page = await this.open(asked);
    if (page.text.includes('name="password"')) {
      page = await this.submit(page, (fields) => {
        fields.set('email', email);
        fields.set('password', password);
      });
    }
    const { url } = await this.submit(page, (fields) => {
      fields.set('decision', 'allow');
      narrow(fields);
    });
    return url;
  }

  private cookiesFor({ pathname }: URL): string {
    return this.cookies
      .filter(({ path }) => pathname === path || pathname.startsWith(path.replace(/\/?$/, '/')))
      .map(({ name, value }) => `${name}=${value}`)
      .join('; ');
  }

  private keep(line: string): void {
    const [pair = '', ...attributes] = line.split(/; */);
    const [name = '', value = ''] = pair.split(/=(.*)/s);
    const path = attributes.find((one) => /^path=/i.test(one))?.slice(5) ?? '/';
    this.cookies = this.cookies.filter((cookie) => cookie.name !== name || cookie.path !== path);
    if (value !== '') this.cookies.push({ name, value, path });
  }
}
