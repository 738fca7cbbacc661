import { createHash } from 'node:crypto';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { envInteger } from '@longhaul/config';
import { metrics } from '@longhaul/telemetry';
import { PrismaPg } from '@prisma/adapter-pg';
import pg from 'pg';
import { z } from 'zod';
import { Prisma, PrismaClient } from './generated/client.js';
import { watch } from './watch.js';

export const persistenceConfig = z.object({
  DATABASE_URL: z
    .string()
    .startsWith('postgres')
    .describe('PostgreSQL that owns all state; may go through a pooler when DATABASE_DIRECT_URL is given'),
  DATABASE_DIRECT_URL: z
    .string()
    .startsWith('postgres')
    .optional()
    .describe('The same database without a pooler, for LISTEN; default: DATABASE_URL'),
  DATABASE_POOL: envInteger(1, 1000).default(10).describe('Connections a process holds at most'),
  DATABASE_TIMEOUT_SECONDS: envInteger(1, 86_400)
    .default(10)
    .describe('A connection to PostgreSQL on which an answer does not come for so long is given up'),
});

/** Without a time-out answers are waited for as long as it takes. */
type Options = Omit<z.output<typeof persistenceConfig>, 'DATABASE_TIMEOUT_SECONDS'> &
  Partial<z.output<typeof persistenceConfig>>;

/** What a statement can run on: the pool, or a transaction. */
export type Transaction = Prisma.TransactionClient;

/** What statements in SQL can run on; values in rows are as `pg` reads them, which for our columns is as Prisma does. */
export interface RawSql {
  $queryRaw<Rows>(text: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): PromiseLike<Rows>;
  /** Answers the number of rows that were changed. */
  $executeRaw(text: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): PromiseLike<number>;
}

@Injectable()
export class Database extends PrismaClient implements OnApplicationShutdown {
  private readonly pool: pg.Pool;

  constructor(readonly options: Options) {
    const pool = new pg.Pool({
      connectionString: options.DATABASE_URL,
      max: options.DATABASE_POOL,
      connectionTimeoutMillis: 5_000,
      // A backend cut off from us must not keep its locks: the server ends what stays idle inside a transaction.
      idle_in_transaction_session_timeout: 15_000,
      keepAlive: true,
    });
    super({
      adapter: new PrismaPg(pool, {
        // The type has no word for a statement without a name.
        statementNameGenerator: ({ sql }) => nameOf(sql, options)!,
      }),
      // Other formats put the values that a statement was given into the message.
      errorFormat: 'minimal',
      transactionOptions: { maxWait: 5_000, timeout: 10_000 },
    });
    this.pool = pool;
    // A connection that breaks while nobody uses it is replaced by the pool.
    pool.on('error', () => undefined);
    // One may break in the very moment in which it is handed over, when neither side listens, and that would end the process.
    pool.on('connect', (client) => {
      client.on('error', () => undefined);
      const { DATABASE_TIMEOUT_SECONDS: seconds } = options;
      if (seconds) watch(client, seconds * 1000);
    });
  }

  /**
   * For statements that run with every call, of a few fixed texts: Prisma takes longer for those than the database, and so does
   * planning. Values are as `pg` reads them.
   */
  async rows<Row extends object>(sql: Pick<Prisma.Sql, 'text' | 'values'>): Promise<Row[]> {
    return (await this.pool.query<Row>(this.prepared(sql))).rows;
  }

  /** The same for transactions. Models and what is not SQL have `$transaction`. */
  async rawTransaction<T>(work: (tx: RawSql) => Promise<T>): Promise<T> {
    const client = await this.pool.connect();
    const run = (text: TemplateStringsArray | Prisma.Sql, values: unknown[]) =>
      client.query<object>(this.prepared('text' in text ? text : Prisma.sql(text, ...values)));
    try {
      await client.query('BEGIN');
      const answer = await work({
        $queryRaw: async <Rows>(text: TemplateStringsArray | Prisma.Sql, ...values: unknown[]) =>
          (await run(text, values)).rows as Rows,
        $executeRaw: async (text, ...values) => (await run(text, values)).rowCount ?? 0,
      });
      await client.query('COMMIT');
      client.release();
      return answer;
    } catch (error) {
      // One that cannot even go back is of no use to others.
      const broken = await client.query('ROLLBACK').then(
        () => false,
        () => true,
      );
      client.release(broken);
      throw error;
    }
  }

  private prepared({ text, values }: Pick<Prisma.Sql, 'text' | 'values'>): pg.QueryConfig {
    return { name: nameOf(text, this.options), text, values };
  }

  /** Now, or so much later. Time is the database's: clocks of processes differ and jump, so that none of them decides anything. */
  async now(laterMs = 0): Promise<Date> {
    const [row] = await this.rows<{ now: Date }>({ text: 'SELECT now()', values: [] });
    return new Date(row!.now.getTime() + laterMs);
  }

  /** Brings the metrics of its connections up to date. */
  measure(): void {
    const { totalCount, idleCount, waitingCount } = this.pool;
    metrics.postgresConnections.set({ state: 'busy' }, totalCount - idleCount);
    metrics.postgresConnections.set({ state: 'idle' }, idleCount);
    metrics.postgresConnections.set({ state: 'waiting' }, waitingCount);
    metrics.postgresConnectionsMax.set(this.options.DATABASE_POOL);
  }

  async onApplicationShutdown() {
    await this.$disconnect();
    await this.pool.end();
  }
}

/** Each connection of the server keeps a plan of each. */
const NAMES_MAX = 300;
const names = new Map<string, string>();
/** Texts of which there is any number, and results that a migration changes. */
const NOT_PREPARED = / IN \(\$|RETURNING (\w+\.)?\*|\* FROM (?!jsonb_to_recordset|unnest)/;

/**
 * The name under which a connection prepares a statement, so that PostgreSQL plans it once: planning takes longer than most of
 * ours run. What is prepared stays with its connection, which a pooler would change.
 */
function nameOf(text: string, { DATABASE_DIRECT_URL: pooled }: Database['options']): string | undefined {
  if (pooled) return undefined;
  const known = names.get(text);
  if (known) return known;
  if (names.size === NAMES_MAX || NOT_PREPARED.test(text)) return undefined;
  const name = createHash('sha256').update(text).digest('hex').slice(0, 32);
  names.set(text, name);
  return name;
}
