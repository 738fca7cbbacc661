// Generates the Prisma client. Generation needs no schema engine, but the Prisma CLI insists on finding one and
// would otherwise download it; any executable will do.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const schema = readFileSync('prisma/schema.prisma');
const lock = readFileSync('node_modules/prisma/package.json');
const stamp = createHash('sha256').update(schema).update(lock).digest('hex');
const stampFile = 'libs/persistence/generated/.stamp';

if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
  const { status } = spawnSync(
    process.execPath,
    ['node_modules/prisma/build/index.js', 'generate', '--no-hints'],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true', PRISMA_HIDE_UPDATE_MESSAGE: '1' },
    },
  );
  if (status !== 0) process.exit(status ?? 1);
  writeFileSync(stampFile, stamp);
}
