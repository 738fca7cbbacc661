import { verifyPassword } from '@longhaul/access';
import type { Audit, AuditEntry } from '@longhaul/audit';
import { toAppError } from '@longhaul/errors';
import {
  giveConsent,
  readConsent,
  userOfIdentity,
  type Choice,
  type Interaction,
  type Oauth,
} from '@longhaul/oauth';
import { createLogger } from '@longhaul/telemetry';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { timingSafeEqual } from 'node:crypto';
import { pageHeaders } from './html.js';
import { consentPage, errorPage, loginPage, type Form } from './pages.js';

export type InteractionRequest = FastifyRequest<{ Params: { uid: string } }>;

const EXPIRED =
  'This request for access is over, or it was begun in another browser. Go back to your app and start again.';
/** Longer than any form of ours. */
const FORM_LIMIT = 64 * 1024;

/** What a person does between the request of a client and its answer: log in, and say what the client may do. */
export class Interactions {
  private readonly log = createLogger('oauth');

  constructor(
    private readonly oauth: Oauth,
    private readonly audit: Audit,
  ) {}

  async show(request: InteractionRequest, reply: FastifyReply): Promise<void> {
    const interaction = await this.find(request, reply);
    if (!interaction) return;
    if (interaction.prompt.name === 'consent') return this.showConsent(interaction, reply);
    const { upstream } = this.oauth;
    if (!upstream) return this.showLogin(interaction, reply);
    await this.guarded(reply, async () => {
      await reply.redirect(await upstream.start(await this.upstreamRequest(interaction.uid)), 303);
    });
  }

  async login(request: InteractionRequest, reply: FastifyReply): Promise<void> {
    const interaction = await this.find(request, reply);
    if (!interaction) return;
    const form = await this.read(request, reply, interaction);
    if (!form || this.oauth.upstream) return form && this.show(request, reply);
    const email = form.get('email') ?? '';
    const account = email.toLowerCase().slice(0, 254);
    const attempt: Parameters<Oauth['limits']['take']> = [
      ['loginFrom', request.ip],
      ['login', `${request.ip} ${account}`],
      ['loginAs', account],
    ];
    const wait = await this.oauth.limits.take(...attempt);
    if (wait > 0) {
      reply.code(429).header('retry-after', wait);
      return this.showLogin(interaction, reply, email, `Too many attempts. Try again in ${wait} seconds.`);
    }
    const user = await verifyPassword(this.oauth.db, email, form.get('password') ?? '');
    const about = { userId: user?.userId, arguments: { email: email.slice(0, 254) } };
    await this.record('oauth/login', request, interaction, user !== undefined, about);
    if (!user) {
      reply.code(401);
      return this.showLogin(interaction, reply, email, 'The e-mail address or the password is wrong.');
    }
    await this.oauth.limits.giveBack(...attempt);
    await this.finish(request, reply, { login: { accountId: user.userId } });
  }

  async consent(request: InteractionRequest, reply: FastifyReply): Promise<void> {
    const interaction = await this.find(request, reply);
    if (!interaction) return;
    const form = await this.read(request, reply, interaction);
    if (!form) return;
    if (interaction.prompt.name !== 'consent') return this.show(request, reply);
    if (form.get('decision') === 'switch') return this.switchAccount(interaction, reply);
    if (form.get('decision') !== 'allow') {
      const refusal = { error: 'access_denied', error_description: 'the person refused' };
      await this.record('oauth/consent', request, interaction, false);
      return this.finish(request, reply, refusal);
    }
    const choice: Choice = { scopes: form.getAll('scopes'), projectIds: form.getAll('projectIds') };
    let grantId: string;
    try {
      grantId = await giveConsent(this.oauth, interaction, choice);
    } catch (thrown) {
      const { code, message } = toAppError(thrown);
      if (code !== 'invalid_arguments') throw thrown;
      reply.code(400);
      return this.showConsent(interaction, reply, message, choice);
    }
    await this.record('oauth/consent', request, interaction, true, { arguments: choice, tokenId: grantId });
    await this.finish(request, reply, { consent: { grantId } });
  }

  /** Forgets who is logged in, and begins anew. */
  private async switchAccount({ session, params }: Interaction, reply: FastifyReply): Promise<void> {
    await this.oauth.db.oauthState.deleteMany({ where: { model: 'Session', uid: session!.uid } });
    const again = new URLSearchParams(params as Record<string, string>);
    await reply.redirect(`/oauth/authorize?${again.toString()}`, 303);
  }

  /** The upstream provider knows one address of ours; from there the browser goes on to the interaction that it holds the cookie of. */
  async fromUpstream(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const query = queryOf(request);
    const [, uid] =
      /^([\w-]{16,64})\.[\w-]{16,64}$/.exec(new URLSearchParams(query).get('state') ?? '') ?? [];
    if (uid === undefined) return fail(reply, 400, EXPIRED);
    await reply.redirect(`/oauth/interaction/${uid}/upstream?${query}`, 303);
  }

  async upstream(request: InteractionRequest, reply: FastifyReply): Promise<void> {
    const interaction = await this.find(request, reply);
    const { upstream, db, config } = this.oauth;
    if (!interaction) return;
    if (!upstream || interaction.prompt.name !== 'login') return this.show(request, reply);
    await this.guarded(reply, async () => {
      const identity = await upstream.finish(queryOf(request), await this.upstreamRequest(interaction.uid));
      const { userId } = await userOfIdentity(db, identity, config.OIDC_CREATE_USERS);
      await this.record('oauth/login', request, interaction, true, { userId });
      await this.finish(request, reply, { login: { accountId: userId } });
    });
  }

  /** Undefined when the answer has been given: this browser has no such interaction. */
  private async find(
    { raw, params }: InteractionRequest,
    reply: FastifyReply,
  ): Promise<Interaction | undefined> {
    const provider = await this.oauth.provider();
    const interaction = await provider.interactionDetails(raw, reply.raw).catch((error: Error) => {
      if (error.name === 'SessionNotFound') return undefined;
      throw error;
    });
    if (interaction?.uid === params.uid) return interaction;
    await fail(reply, 400, EXPIRED);
    return undefined;
  }

  /** The fields of a form that our page has shown; undefined when the answer has been given. */
  private async read(
    { body }: InteractionRequest,
    reply: FastifyReply,
    { uid }: Interaction,
  ): Promise<URLSearchParams | undefined> {
    const bytes = Buffer.isBuffer(body) ? body : Buffer.alloc(0);
    if (bytes.length > FORM_LIMIT) await fail(reply, 413, 'That is more than any form here has.');
    if (bytes.length > FORM_LIMIT) return undefined;
    const form = new URLSearchParams(bytes.toString());
    const given = Buffer.from(form.get('mark') ?? '');
    const mark = Buffer.from(await this.oauth.mark('form', uid));
    if (given.length === mark.length && timingSafeEqual(given, mark)) return form;
    await fail(reply, 403, EXPIRED);
    return undefined;
  }

  private async showLogin(interaction: Interaction, reply: FastifyReply, email?: string, problem?: string) {
    const { client_id: id, redirect_uri: redirectUri, login_hint: hint } = interaction.params;
    const client = await (await this.oauth.provider()).Client.find(String(id));
    const page = loginPage(
      await this.formOf(interaction),
      client?.clientName ?? String(id),
      email ?? (typeof hint === 'string' ? hint.slice(0, 254) : ''),
      problem,
    );
    await reply.headers(pageHeaders(String(redirectUri))).send(page);
  }

  private async showConsent(
    interaction: Interaction,
    reply: FastifyReply,
    problem?: string,
    choice?: Choice,
  ) {
    const consent = await readConsent(this.oauth, interaction);
    const page = consentPage(await this.formOf(interaction), consent, problem, choice);
    await reply.headers(pageHeaders(consent.client.redirectUri)).send(page);
  }

  private async finish(
    { raw }: InteractionRequest,
    reply: FastifyReply,
    result: Parameters<Awaited<ReturnType<Oauth['provider']>>['interactionFinished']>[2],
  ): Promise<void> {
    const provider = await this.oauth.provider();
    const returnTo = await provider.interactionResult(raw, reply.raw, result);
    await reply.redirect(returnTo, 303);
  }

  /** Before anything is answered, like calls. How often strangers may try is bounded elsewhere. */
  private async record(
    tool: string,
    { id: requestId, ip, headers }: InteractionRequest,
    { params, session }: Interaction,
    ok: boolean,
    more: Partial<AuditEntry> = {},
  ): Promise<void> {
    await this.audit.record({
      event: 'call',
      tool,
      userId: session?.accountId,
      clientId: String(params.client_id),
      result: ok ? 'ok' : 'refused',
      ...(!ok && tool === 'oauth/login' && { code: 'unauthenticated' }),
      requestId,
      ip,
      userAgent: headers['user-agent'],
      ...more,
    });
  }

  private async guarded(reply: FastifyReply, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.cause) this.log.warn({ err: error.cause }, 'the upstream login failed');
      await fail(reply, error.code === 'unavailable' ? 503 : 403, error.message);
    }
  }

  private async formOf({ uid }: Interaction): Promise<Form> {
    return { path: `/oauth/interaction/${uid}`, mark: await this.oauth.mark('form', uid) };
  }

  /** Made of the interaction, which only one browser has the cookie of: nothing needs to be stored until it comes back. */
  private async upstreamRequest(uid: string) {
    const [state, nonce, verifier] = await Promise.all(
      ['state', 'nonce', 'verifier'].map((purpose) => this.oauth.mark(`upstream ${purpose}`, uid)),
    );
    return { state: `${uid}.${state}`, nonce: nonce!, verifier: verifier! };
  }
}

const queryOf = ({ raw }: { raw: { url?: string } }) => raw.url?.split('?')[1] ?? '';

async function fail(reply: FastifyReply, status: number, message: string): Promise<void> {
  await reply.code(status).headers(pageHeaders()).send(errorPage('This does not work', message));
}
