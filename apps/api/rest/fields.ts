import { SCOPES } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
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

/** Of lists. `after` is the `next` of the page before. */
export const page = {
  limit: z.coerce.number().int().min(1).max(200).default(50),
  after: id.optional().describe('The next of the page before'),
};

export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({ items: z.array(item), next: z.string().optional().describe('There is more: pass it as after') });

/** What Prisma is to read for a page: one row more, by which to know that there are more. */
export const paged = ({ limit, after }: { limit: number; after?: string }) => ({
  take: limit + 1,
  ...(after !== undefined && { cursor: { id: after }, skip: 1 }),
});

export const NEWEST_FIRST = [{ createdAt: 'desc' }, { id: 'desc' }] as const;

/** The answer of a list of rows that `paged` has read. */
export function toPage<Row extends { id: string }, Item>(
  rows: Row[],
  { limit }: { limit: number },
  toItem: (row: Row) => Item,
): { items: Item[]; next?: string } {
  const shown = rows.slice(0, limit);
  return { items: shown.map(toItem), ...(rows.length > limit && { next: shown.at(-1)!.id }) };
}

/** Foreign and absent are the same. */
export const notFound = () => new AppError('not_found', 'There is nothing of that address here.');

export function found<T>(row: T | null | undefined): T {
  if (row === null || row === undefined) throw notFound();
  return row;
}

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
