// npm run migration -- <name>: writes the migration that brings prisma/migrations up to prisma/schema.prisma.
//
// The schema that the migrations have reached is kept beside them, and the two schemas are compared. A database to compare
// with would make the engine undo all that Prisma cannot say (partial indexes, triggers). It insists on being connected to
// one all the same, so it gets an empty one that is thrown away.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../dist/libs/persistence/embedded/index.js';
import { migrationsDirectory } from '../dist/libs/persistence/migrate.js';
import { withSchemaEngine } from '../dist/libs/persistence/schema-engine.js';

const name = process.argv[2] ?? '';
if (!/^[a-z0-9_]{1,60}$/.test(name)) {
  console.error('Usage: npm run migration -- <name> (lower case letters, digits and _)');
  process.exit(2);
}

const migrations = migrationsDirectory();
const schema = join(migrations, '..', 'schema.prisma');
const reached = join(migrations, 'schema.prisma');
const model = (path) => ({
  tag: 'schemaDatamodel',
  files: [{ path: 'schema.prisma', content: readFileSync(path, 'utf8') }],
});

const { stdout, exitCode } = await onScratchDatabase((url) =>
  withSchemaEngine(url, (engine) =>
    engine.diff({
      from: existsSync(reached) ? model(reached) : { tag: 'empty' },
      to: model(schema),
      script: true,
      exitCode: true,
      filters: { externalTables: [], externalEnums: [] },
    }),
  ),
);
if (exitCode === 0) {
  console.log('The migrations lead to this schema already: nothing written.');
} else {
  const time = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
  const folder = join(migrations, `${time}_${name}`);
  mkdirSync(folder);
  writeFileSync(join(folder, 'migration.sql'), stdout);
  copyFileSync(schema, reached);
  console.log(`Written: ${join(folder, 'migration.sql')}. Read it, and complete it, before you commit it.`);
}

async function onScratchDatabase(use) {
  const directory = mkdtempSync(join(tmpdir(), 'longhaul-migration-'));
  chmodSync(directory, 0o755);
  try {
    const server = await startEmbeddedPostgres({
      directory: join(directory, 'postgres'),
      runAsUser: 'nobody',
    });
    try {
      return await use(server.url);
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
