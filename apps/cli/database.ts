import { join } from 'node:path';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@longhaul/persistence/embedded';
import { fromEnvironment } from './environment.js';
import type { Home } from './home.js';

/** Where the database and the queue are: for our own use and as the environment of the API and the worker. */
export interface DatabaseEnv {
  DATABASE_URL: string;
  QUEUE_URL: string;
}

/** The database that DATABASE_URL names, or else the embedded one, started if need be; `stop` leaves a given one alone. */
export async function openDatabase(
  { directory, systemUser }: Home,
  onProgress: (message: string) => void,
): Promise<{ env: DatabaseEnv; stop: () => Promise<void> }> {
  const given = fromEnvironment('DATABASE_URL');
  let embedded: EmbeddedPostgres | undefined;
  if (!given) {
    embedded = await startEmbeddedPostgres({
      directory: join(directory, 'postgres'),
      runAsUser: systemUser,
      onProgress,
    });
  }
  const url = embedded?.url ?? given ?? '';
  return {
    env: { DATABASE_URL: url, QUEUE_URL: fromEnvironment('QUEUE_URL') ?? url },
    stop: async () => embedded?.stop(),
  };
}
