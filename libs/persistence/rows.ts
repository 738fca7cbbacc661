import { Prisma } from './generated/client.js';

/** Rows of raw SQL come with the database's names (`vm_id`); this gives them those of the Prisma models (`vmId`). */
export function camelKeys<T>(row: object): T {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]) => [
      key.replace(/_([a-z])/g, (_match, letter: string) => letter.toUpperCase()),
      value,
    ]),
  ) as T;
}

const columnOf = (field: string) => field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/**
 * The columns of a table for raw SQL, under the names of its model. Each by its name: a statement with `*` that a connection has
 * prepared fails for good once a migration has added a column.
 */
const columnsOf = (table: string, fields: object) =>
  Prisma.raw(
    Object.keys(fields)
      .map((field) => `${table}.${columnOf(field)} AS "${field}"`)
      .join(', '),
  );

export const JOB_COLUMNS = columnsOf('jobs', Prisma.JobScalarFieldEnum);
export const VM_COLUMNS = columnsOf('vms', Prisma.VmScalarFieldEnum);
