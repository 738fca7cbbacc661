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

  async seal(state: RequestState, context: ServerContext): Promise<string> {
    return (await this.opened()).mint(state, context);
  }

  /** Throws for anything that was not signed here for this token, or too long ago. */
  async verify(state: string, context: ServerContext): Promise<RequestState> {
    return (await this.opened()).verify(state, context);
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
    return createRequestStateCodec({ key, ttlSeconds: STATE_SECONDS, bind: tokenOf });
  }
}

const tokenOf = ({ http }: ServerContext) =>
  (http?.authInfo?.extra?.request as CallRequest | undefined)?.caller.tokenId ?? '';
