import { applyMigrations } from '@longhaul/persistence/migrate';
import { fromEnvironment } from './environment.js';
import { UsageError } from './usage.js';

/** For a database of one's own; `up` migrates by itself. Safe when several start at once. */
export async function migrate(): Promise<void> {
  const url = fromEnvironment('DATABASE_URL');
  if (!url) throw new UsageError('Set DATABASE_URL to the database that is to be migrated.');
  const applied = await applyMigrations(url);
  console.log(applied.length > 0 ? `Applied: ${applied.join(', ')}` : 'Nothing to do.');
}
