import { Prisma, type Database } from '@longhaul/persistence';
import { errors, type Adapter, type AdapterPayload } from 'oidc-provider';
import { revokeGrant } from './grants.js';
import { hashId } from './ids.js';

/** Models whose id is what their holder proves to be it with. They are stored by a hash, like tokens. */
const SECRET_IDS = new Set([
  'AccessToken',
  'AuthorizationCode',
  'ClientCredentials',
  'RefreshToken',
  'Session',
]);
/** A client that registers itself and is never let in is forgotten after this long. */
const UNUSED_CLIENT_SECONDS = 24 * 3600;

interface Row {
  payload: AdapterPayload;
  consumed: number | null;
  /** Seconds that are left of its time. */
  left: number | null;
}

/** Where oidc-provider keeps what it knows: table oauth_state. What belongs to a revoked grant does not exist any more. */
export class OauthState implements Adapter {
  constructor(
    private readonly db: Database,
    private readonly model: string,
    /** Told of a grant that ends because of what `consume` has found. */
    private readonly grantRevoked: (grantId: string) => void,
  ) {}

  async upsert(id: string, payload: AdapterPayload, expiresIn?: number): Promise<void> {
    const { session } = payload;
    // Who could read its id here would have it. Nor does anybody need the cookie of a session from here.
    const stored = {
      ...payload,
      jti: undefined,
      ...(session && { session: { ...session, cookie: undefined } }),
    };
    const seconds = expiresIn ?? this.defaultSeconds(payload);
    await this.db.$executeRaw`
      INSERT INTO oauth_state (model, id, payload, grant_id, uid, expires_at)
      VALUES (${this.model}, ${this.keyOf(id)}, ${JSON.stringify(stored)}::jsonb, ${this.grantOf(id, payload) ?? null},
        ${payload.uid ?? null}, now() + ${seconds ?? null}::int * interval '1 second')
      ON CONFLICT (model, id) DO UPDATE SET payload = excluded.payload, grant_id = excluded.grant_id,
        uid = excluded.uid, expires_at = excluded.expires_at`;
  }

  async find(id: string): Promise<AdapterPayload | undefined> {
    // Ids of clients come as anybody writes them; the database takes no NUL.
    if (id.includes('\0')) return undefined;
    const found = await this.findBy(Prisma.sql`id = ${this.keyOf(id)}`);
    return found && (this.model === 'Client' ? found : { ...found, jti: id });
  }

  findByUid(uid: string): Promise<AdapterPayload | undefined> {
    return this.findBy(Prisma.sql`uid = ${uid}`);
  }

  /** No flow with user codes is served. */
  async findByUserCode(): Promise<undefined> {
    return undefined;
  }

  /** Of two that use the same code or token at once, one is a thief: nobody can say which, so the grant dies. */
  async consume(id: string): Promise<void> {
    const key = this.keyOf(id);
    const consumed = await this.db.$executeRaw`
      UPDATE oauth_state SET consumed_at = now()
      WHERE model = ${this.model} AND id = ${key} AND consumed_at IS NULL`;
    if (consumed > 0) return;
    const [row] = await this.db.oauthState.findMany({ where: { model: this.model, id: key } });
    if (row?.grantId && (await revokeGrant(this.db, row.grantId))) this.grantRevoked(row.grantId);
    throw new errors.InvalidGrant('already used');
  }

  async destroy(id: string): Promise<void> {
    if (this.model === 'Grant') await revokeGrant(this.db, id);
    await this.db.oauthState.deleteMany({ where: { model: this.model, id: this.keyOf(id) } });
  }

  async revokeByGrantId(grantId: string): Promise<void> {
    await this.db.oauthState.deleteMany({ where: { model: this.model, grantId } });
  }

  private async findBy(which: Prisma.Sql): Promise<AdapterPayload | undefined> {
    const [row] = await this.db.rows<Row>(Prisma.sql`
      SELECT payload, floor(extract(epoch FROM consumed_at))::int AS consumed,
        ceil(extract(epoch FROM expires_at - now()))::int AS left
      FROM oauth_state
      WHERE model = ${this.model} AND ${which} AND (expires_at IS NULL OR expires_at > now())
        AND NOT EXISTS (SELECT FROM oauth_grants AS g WHERE g.id = grant_id AND g.revoked_at IS NOT NULL)
      LIMIT 1`);
    if (!row) return undefined;
    const { payload, consumed, left } = row;
    return {
      ...payload,
      ...(consumed !== null && { consumed }),
      // Of the clock of whoever made it, which may differ from the one that it is compared with here.
      ...(payload.exp !== undefined && left !== null && { exp: Math.floor(Date.now() / 1000) + left }),
    };
  }

  private keyOf(id: string): string {
    return SECRET_IDS.has(this.model) ? hashId(id) : id;
  }

  /** A machine's grant has the id of its client, and so does what hangs on it. */
  private grantOf(id: string, payload: AdapterPayload): string | undefined {
    if (this.model === 'Grant') return id;
    return this.model === 'ClientCredentials' ? payload.clientId : payload.grantId;
  }

  private defaultSeconds({ client_secret: secret }: AdapterPayload): number | undefined {
    return this.model === 'Client' && !secret ? UNUSED_CLIENT_SECONDS : undefined;
  }
}
