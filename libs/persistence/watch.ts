import type { Socket } from 'node:net';
import type pg from 'pg';

/**
 * Ends the connection once an answer has not come for `ms`: one that was cut off without a word would be waited for as long as
 * the kernel repeats its packets, a quarter of an hour or for ever. Who waits gets an error with the code ETIMEDOUT.
 */
export function watch(client: pg.ClientBase, ms: number): void {
  // Not of the types of `pg`: the socket, and whether nobody waits for an answer.
  const { connection } = client as unknown as { connection: { stream: Socket } };
  connection.stream.setTimeout(ms).on('timeout', () => {
    if ((client as unknown as { readyForQuery: boolean }).readyForQuery) return;
    const error = new Error(`PostgreSQL has not answered for ${ms} ms`);
    connection.stream.destroy(Object.assign(error, { code: 'ETIMEDOUT' }));
  });
}
