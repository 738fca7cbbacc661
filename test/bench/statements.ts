import pg from 'pg';

export interface Statement {
  text: string;
  values: unknown[];
}

/** The statements that `use` sends to the database, in order; nothing else of this process may send any meanwhile. */
export async function recordStatements(use: () => Promise<unknown>): Promise<Statement[]> {
  const statements: Statement[] = [];
  const { query } = pg.Client.prototype;
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    const [first, values] = args as [string | Statement, unknown[]?];
    if (typeof first === 'string') statements.push({ text: first, values: values ?? [] });
    else statements.push({ text: first.text, values: first.values ?? [] });
    return (query as (...args: unknown[]) => unknown).apply(this, args);
  } as typeof query;
  try {
    await use();
  } finally {
    pg.Client.prototype.query = query;
  }
  return statements;
}
