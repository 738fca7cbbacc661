import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { installBinaries } from './binaries.js';

/** Name of the only role, and of the database. */
export const NAME = 'longhaul';

/** The files of one PostgreSQL server. All but `data` belong to the invoking user, so that a server gone bad cannot lead root astray. */
export interface Cluster {
  directory: string;
  binaries: string;
  data: string;
  password: string;
  /** How to run one of the binaries: as the right user, with nothing of our environment. */
  spawnOptions: { cwd: string; env: NodeJS.ProcessEnv; uid?: number; gid?: number };
}

/** Makes whatever of it is missing; cut short at any point, the next call goes on from there. */
export async function prepareCluster(
  path: string,
  runAsUser: string | undefined,
  onProgress: (message: string) => void,
): Promise<Cluster> {
  const owner = ownerFor(runAsUser);
  mkdirSync(path, { recursive: true });
  const directory = realpathSync(path);
  chmodSync(directory, 0o755);
  const data = join(directory, 'data');
  const passwordFile = join(directory, 'password');
  if (!existsSync(passwordFile)) {
    if (existsSync(data))
      throw new Error(`${passwordFile} is gone, and ${data} cannot be opened without it.`);
    const unfinished = `${passwordFile}.new`;
    writeFileSync(unfinished, randomBytes(24).toString('base64url'), { mode: 0o600 });
    // initdb reads it as that user.
    if (owner) chownSync(unfinished, owner.uid, owner.gid);
    renameSync(unfinished, passwordFile);
  }

  const cluster: Cluster = {
    directory,
    data,
    binaries: installBinaries(directory),
    password: readFileSync(passwordFile, 'utf8').trim(),
    // PostgreSQL needs no supplementary groups; Node drops them all when it is given a uid.
    spawnOptions: { cwd: directory, env: { PATH: process.env.PATH, LC_ALL: 'C' }, ...owner },
  };
  if (!existsSync(data)) {
    onProgress('Creating the PostgreSQL database');
    await initialise(cluster, passwordFile);
  }
  return cluster;
}

async function initialise({ binaries, data, spawnOptions }: Cluster, passwordFile: string): Promise<void> {
  const unfinished = `${data}.new`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { mode: 0o700 });
  if (spawnOptions.uid !== undefined && spawnOptions.gid !== undefined) {
    chownSync(unfinished, spawnOptions.uid, spawnOptions.gid);
  }
  const options = [
    ['-D', unfinished, '-U', NAME, '-A', 'scram-sha-256', '--pwfile', passwordFile],
    ['--encoding', 'UTF8', '--locale', 'C', '--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8'],
  ];
  await promisify(execFile)(join(binaries, 'bin/initdb'), options.flat(), {
    ...spawnOptions,
    timeout: 120_000,
  });
  renameSync(unfinished, data);
}

function ownerFor(user: string | undefined): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  if (!user) throw new Error('PostgreSQL refuses to run as root: name a system user for it.');
  const id = (flag: string) => Number(execFileSync('id', [flag, '--', user], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}
