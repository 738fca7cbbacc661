/** Rows of raw SQL come with the database's names (`vm_id`); this gives them those of the Prisma models (`vmId`). */
export function camelKeys<T>(row: object): T {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]) => [
      key.replace(/_([a-z])/g, (_match, letter: string) => letter.toUpperCase()),
      value,
    ]),
  ) as T;
}
