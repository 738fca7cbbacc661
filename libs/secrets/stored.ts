import { randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Database, Prisma, newId, parseId, type Transaction } from '@longhaul/persistence';
import { Secrets } from './secrets.js';

/** Every column that holds sealed text, with the key of its row. One that is not here is lost with the next old master key. */
export const SEALED_COLUMNS = [
  { table: 'signing_keys', key: 'name', column: 'key' },
  { table: 'one_time_secrets', key: 'id', column: 'secret' },
  { table: 'vms', key: 'id', column: 'credential' },
] as const;

type Table = (typeof SEALED_COLUMNS)[number]['table'];

/** Rows that one round of a rotation reads. */
const BATCH = 500;

/** Secrets that are kept in the database. What is sealed for one row does not open in another. */
@Injectable()
export class StoredSecrets {
  constructor(
    private readonly db: Database,
    private readonly secrets: Secrets,
  ) {}

  seal(table: Table, key: string, plain: Buffer): string {
    return this.secrets.seal(plain, contextOf(table, key));
  }

  open(table: Table, key: string, sealed: string): Buffer {
    return this.secrets.open(sealed, contextOf(table, key));
  }

  /** The key of that name, which all replicas share; the first that asks makes it, by default of 32 random bytes. */
  async signingKey(
    name: string,
    make: () => Buffer | Promise<Buffer> = () => randomBytes(32),
  ): Promise<Buffer> {
    const kept = await this.db.signingKey.findUnique({ where: { name } });
    if (kept) return this.open('signing_keys', name, kept.key);
    const key = this.seal('signing_keys', name, await make());
    await this.db.signingKey.createMany({ data: { name, key }, skipDuplicates: true });
    // Of two processes that start at once, the first one's counts.
    return this.signingKey(name, make);
  }

  /** Keeps a secret until its owner asks for it, at most `seconds`; answers its id. */
  async keepOnce(tx: Transaction, userId: string, plain: Buffer, seconds: number): Promise<string> {
    const id = newId();
    const secret = this.seal('one_time_secrets', id, plain);
    await tx.$executeRaw`
      INSERT INTO one_time_secrets (id, user_id, secret, expires_at)
      VALUES (${id}::uuid, ${userId}::uuid, ${secret}, now() + ${seconds} * interval '1 second')`;
    return id;
  }

  /**
   * As `keepOnce`, under an id of the caller's own (a UUID). The first call makes the secret, and later ones answer the same,
   * so that work may be repeated until somebody is told.
   */
  async keepOnceFor(
    tx: Transaction,
    id: string,
    userId: string,
    make: () => Buffer,
    seconds: number,
  ): Promise<Buffer> {
    const secret = this.seal('one_time_secrets', id, make());
    await tx.$executeRaw`
      INSERT INTO one_time_secrets (id, user_id, secret, expires_at)
      VALUES (${id}::uuid, ${userId}::uuid, ${secret}, now() + ${seconds} * interval '1 second') ON CONFLICT DO NOTHING`;
    const kept = await tx.oneTimeSecret.findUniqueOrThrow({ where: { id } });
    return this.open('one_time_secrets', id, kept.secret);
  }

  /** The secret, which is deleted with that; undefined for one that was delivered, has expired, or is somebody else's. */
  async deliverOnce(secretId: string, userId: string): Promise<Buffer | undefined> {
    const id = parseId(secretId);
    if (!id) return undefined;
    const [row] = await this.db.$queryRaw<{ secret: string }[]>`
      DELETE FROM one_time_secrets WHERE id = ${id}::uuid AND user_id = ${userId}::uuid AND expires_at > now()
      RETURNING secret`;
    return row && this.open('one_time_secrets', id, row.secret);
  }

  /** Wraps all that is stored under the present master key, while others read and write; answers how many were not yet. */
  async rewrapAll(): Promise<number> {
    let rewrapped = 0;
    for (const place of SEALED_COLUMNS) {
      for (let last = ''; ;) {
        const rows = await this.page(place, last);
        for (const { id, sealed } of rows) rewrapped += await this.rewrap(place, id, sealed);
        if (rows.length < BATCH) break;
        last = rows.at(-1)!.id;
      }
    }
    return rewrapped;
  }

  private page({ table, key, column }: Place, after: string): Promise<{ id: string; sealed: string }[]> {
    const [from, id, sealed] = [table, key, column].map((name) => Prisma.raw(`"${name}"`)) as [Sql, Sql, Sql];
    return this.db.$queryRaw`
      SELECT ${id}::text AS id, ${sealed} AS sealed FROM ${from}
      WHERE ${id}::text > ${after} AND ${sealed} IS NOT NULL
      ORDER BY ${id}::text LIMIT ${BATCH}`;
  }

  /** One that was changed or taken meanwhile is left alone. */
  private async rewrap({ table, key, column }: Place, rowId: string, sealed: string): Promise<number> {
    const wrapped = this.secrets.rewrap(sealed, contextOf(table, rowId));
    if (wrapped === undefined) return 0;
    const [into, id, text] = [table, key, column].map((name) => Prisma.raw(`"${name}"`)) as [Sql, Sql, Sql];
    return this.db.$executeRaw`
      UPDATE ${into} SET ${text} = ${wrapped} WHERE ${id}::text = ${rowId} AND ${text} = ${sealed}`;
  }
}

type Place = (typeof SEALED_COLUMNS)[number];
type Sql = Prisma.Sql;

const contextOf = (table: Table, key: string) => `${table} ${key}`;
