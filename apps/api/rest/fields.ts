import { SCOPES } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { Prisma } from '@longhaul/persistence';
import { z } from 'zod';

// Parts of requests and answers that mean the same on every route.

export const id = z.guid().toLowerCase();
export const inPath = z.strictObject({ id });
export const time = z.iso.datetime();
export const scopes = z.array(z.enum(SCOPES));
export const email = z.email().max(254).toLowerCase();

/** What people write: printable, so that it can go into a log, a header or a terminal. */
export const text = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .regex(/^[^\p{Cc}\p{Cs}\u2028\u2029]*$/u, 'expected text without control characters');

/** A switch in a query. */
export const flag = z.enum(['true', 'false']).transform((word) => word === 'true');

/** Where a page ends: its last row. It is checked against nothing, so that it tells nothing of what exists. */
const cursor = (idSchema: z.ZodType<string>) =>
  z
    .string()
    .max(100)
    .transform((text, context) => {
      const [, time, rest] = /^(\d{1,13})\.(.+)$/s.exec(text) ?? [];
      const id = idSchema.safeParse(rest);
      if (id.success) return { createdAt: new Date(Number(time)), id: id.data };
      context.addIssue('expected the next of the page before');
      return z.NEVER;
    })
    .optional()
    .describe('The next of the page before');

/** Of lists; newest first. */
export const pageOfIds = (idSchema: z.ZodType<string>) => ({
  limit: z.coerce.number().int().min(1).max(200).default(50),
  after: cursor(idSchema),
});

export const page = pageOfIds(id);

type Page = { limit: number; after?: { createdAt: Date; id: string } };

export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({ items: z.array(item), next: z.string().optional().describe('There is more: pass it as after') });

/** What Prisma is to read for a page: one row more, by which to know that there are more. */
export const paged = <Where extends object>(where: Where, { limit, after }: Page) => ({
  where: {
    ...where,
    ...(after && {
      OR: [{ createdAt: { lt: after.createdAt } }, { createdAt: after.createdAt, id: { lt: after.id } }],
    }),
  },
  orderBy: [{ createdAt: 'desc' as const }, { id: 'desc' as const }],
  take: limit + 1,
});

/** The answer of a list of rows that `paged` has read. */
export function toPage<Row extends { id: string; createdAt: Date }, Item>(
  rows: Row[],
  { limit }: Page,
  toItem: (row: Row) => Item,
): { items: Item[]; next?: string } {
  const last = rows[limit - 1];
  const next = rows.length > limit && last ? `${last.createdAt.getTime()}.${last.id}` : undefined;
  return { items: rows.slice(0, limit).map(toItem), next };
}

/** Foreign and absent are the same. */
export const notFound = () => new AppError('not_found', 'There is nothing of that address here.');

export function found<T>(row: T | null | undefined): T {
  if (row === null || row === undefined) throw notFound();
  return row;
}

/** For `catch`: what is unique is there already. */
export const conflict =
  (message: string) =>
  (thrown: unknown): never => {
    const isDouble = thrown instanceof Prisma.PrismaClientKnownRequestError && thrown.code === 'P2002';
    throw isDouble ? new AppError('conflict', message) : thrown;
  };

type SnakeCase<Name> = Name extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${SnakeCase<Rest>}`
  : '';

type Shown<Row> = { [Key in keyof Row as SnakeCase<Key>]: ShownValue<Row[Key]> };
type ShownValue<Value> = Value extends Date ? string : Value;

/** A row as answers name and write its columns (`createdAt: Date` becomes `created_at: string`); what a route does not declare it drops. */
export const shown = <Row extends object>(row: Row): Shown<Row> =>
  Object.fromEntries(
    Object.entries(row).map(([key, value]) => [
      key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value instanceof Date ? value.toISOString() : value,
    ]),
  ) as Shown<Row>;
