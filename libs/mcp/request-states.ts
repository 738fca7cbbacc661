import { Injectable } from '@nestjs/common';
import { AppError } from '@longhaul/errors';
import { Database } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import {
  createRequestStateCodec,
  type RequestStateCodec,
  type ServerContext,
} from '@modelcontextprotocol/server';
import type { CallRequest } from './call.js';
import { STATE_SECONDS, type RequestState } from './input.js';

const KEY_NAME = 'request-state';
/** The codec goes by the clock of its process, which may differ from that of the replica that signed: it is not to decide. */
const CODEC_SECONDS = 365 * 86_400;

/**
 * Signs and checks what travels through a client between two rounds of a call. The key is in the database, so that any replica
 * takes what another one has signed. A state is bound to the token that it was given to.
 */
@Injectable()
export class RequestStates {
  private codec?: Promise<RequestStateCodec<RequestState>>;

  constructor(
    private readonly db: Database,
    private readonly secrets: StoredSecrets,
  ) {}

  async seal(state: Omit<RequestState, 'expiresAt'>, context: ServerContext): Promise<string> {
    const expiresAt = (await this.seconds()) + STATE_SECONDS;
    return (await this.opened()).mint({ ...state, expiresAt }, context);
  }

  /** Throws for anything that was not signed here for this token, or too long ago. */
  async verify(text: string, context: ServerContext): Promise<RequestState> {
    const state = await (await this.opened()).verify(text, context);
    if (state.expiresAt <= (await this.seconds())) throw new Error('expired');
    return state;
  }

  /** Uses a state up. Errors: `confirmation_required` when it had been. */
  async use({ id, expiresAt }: RequestState): Promise<void> {
    const used = await this.db.$executeRaw`
      INSERT INTO used_request_states (id, expires_at) VALUES (${id}::uuid, to_timestamp(${expiresAt}))
      ON CONFLICT DO NOTHING`;
    if (used === 0)
      throw new AppError('confirmation_required', 'This confirmation has been used; ask again.');
  }

  private opened(): Promise<RequestStateCodec<RequestState>> {
    this.codec ??= this.open().catch((error: unknown) => {
      this.codec = undefined;
      throw error;
    });
    return this.codec;
  }

  private async open(): Promise<RequestStateCodec<RequestState>> {
    const key = await this.secrets.signingKey(KEY_NAME);
    return createRequestStateCodec({ key, ttlSeconds: CODEC_SECONDS, bind: tokenOf });
  }

  private async seconds(): Promise<number> {
    return Math.floor((await this.db.now()).getTime() / 1000);
  }
}

const tokenOf = ({ http }: ServerContext) =>
  (http?.authInfo?.extra?.request as CallRequest | undefined)?.caller.tokenId ?? '';
