import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { TEST_SECRETS_KEYS } from './database.js';

const MAIN = join(import.meta.dirname, '../../apps/api/main.ts');
const TYPESCRIPT = join(import.meta.dirname, 'register-typescript.mjs');

export interface ApiProcess {
  child: ChildProcess;
  exit: Promise<unknown[]>;
  /** What it has printed so far. */
  output(): string;
  /** Its port, once it serves. */
  ready(): Promise<number>;
}

/** The API as a process of its own, compiled as it is loaded, with nothing of this process's environment but PATH. */
export function forkApi(databaseUrl: string, env: NodeJS.ProcessEnv = {}): ApiProcess {
  const child = fork(MAIN, {
    execArgv: ['--import', TYPESCRIPT],
    env: {
      PATH: process.env.PATH,
      DATABASE_URL: databaseUrl,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
      PORT: '0',
      SHUTDOWN_DELAY_SECONDS: '0',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let output = '';
  child.stdout!.on('data', (chunk) => (output += chunk));
  const ready = async () => {
    const [message] = (await once(child, 'message')) as [{ type: string; port: number }];
    return message.port;
  };
  return { child, exit: once(child, 'exit'), output: () => output, ready };
}
