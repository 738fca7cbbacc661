import { spawn, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startTimeOf } from '@longhaul/persistence/embedded';
import { isAlive, readRecord, type Home } from './home.js';

const READY_TIMEOUT_MS = 60_000;
const BACKOFF_MS = { least: 200, most: 5_000 };
const MAX_LOG_BYTES = 20 * 1024 * 1024;

export interface ServiceOptions {
  /** For messages, and of the files in log/ and run/. */
  name: string;
  /** The script that Node runs. */
  main: string;
  env: NodeJS.ProcessEnv;
}

/**
 * One of our own processes: started, watched and started again when it dies. It says `{ type: 'ready', port }` over IPC,
 * ends by itself when that channel closes, and in order on SIGTERM.
 */
export class Service {
  private child: ChildProcess | undefined;
  private stopping = false;
  private backoffMs = BACKOFF_MS.least;
  private readonly log: string;
  private readonly pidFile: string;

  constructor(
    private readonly options: ServiceOptions,
    { directory }: Pick<Home, 'directory'>,
    private readonly say: (message: string) => void,
  ) {
    this.log = join(directory, 'log', `${options.name}.log`);
    this.pidFile = pidFileOf(directory, options.name);
  }

  /** Resolves once it is ready, with the port it listens on; throws when it ends before or takes over a minute. */
  async start(): Promise<number | undefined> {
    const port = await this.launch();
    this.watch();
    return port;
  }

  /** Asks it to end, and makes it after `timeoutMs`. */
  async stop(timeoutMs: number): Promise<void> {
    this.stopping = true;
    const { child } = this;
    if (!child || hasEnded(child)) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    await ended;
    clearTimeout(timer);
    rmSync(this.pidFile, { force: true });
  }

  private launch(): Promise<number | undefined> {
    if (existsSync(this.log) && statSync(this.log).size > MAX_LOG_BYTES)
      renameSync(this.log, `${this.log}.1`);
    const log = openSync(this.log, 'a', 0o600);
    const { name, main, env } = this.options;
    // Its own process group, so that a Ctrl-C reaches us alone and we end everything in order.
    const child = spawn(process.execPath, ['--enable-source-maps', main], {
      env: { ...process.env, ...env },
      stdio: ['ignore', log, log, 'ipc'],
      detached: true,
    });
    closeSync(log);
    this.child = child;
    const { pid } = child;
    if (pid !== undefined) writeFileSync(this.pidFile, JSON.stringify({ pid, startTime: startTimeOf(pid) }));

    return new Promise((resolve, reject) => {
      const fail = (what: string) =>
        reject(new Error(`The ${name} ${what}. The end of ${this.log}:\n${this.endOfLog()}`));
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        fail(`was not ready within ${READY_TIMEOUT_MS / 1000} s`);
      }, READY_TIMEOUT_MS);
      child.on('message', (message: { type?: string; port?: number }) => {
        if (message.type !== 'ready') return;
        clearTimeout(timer);
        resolve(message.port);
      });
      child.once('error', (error) => fail(`cannot be started: ${error.message}`));
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        fail(`ended (${signal ?? code})`);
      });
    });
  }

  private watch(): void {
    const { child } = this;
    const readySince = performance.now();
    const again = () => void this.restart(performance.now() - readySince);
    if (!child || hasEnded(child)) again();
    else child.once('exit', again);
  }

  private async restart(livedMs: number): Promise<void> {
    if (livedMs > BACKOFF_MS.most) this.backoffMs = BACKOFF_MS.least;
    while (!this.stopping) {
      this.say(`The ${this.options.name} ended; starting it again`);
      await delay(this.backoffMs);
      this.backoffMs = Math.min(this.backoffMs * 2, BACKOFF_MS.most);
      if (this.stopping) return;
      try {
        await this.launch();
        return this.watch();
      } catch (error) {
        this.say((error as Error).message);
      }
    }
  }

  private endOfLog(): string {
    return readFileSync(this.log, 'utf8').slice(-2_000);
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Ends the process that an earlier `up` left behind. It may be stopped or hang, and is made to bear being killed. */
export async function endLeftover({ directory }: Pick<Home, 'directory'>, name: string): Promise<void> {
  const leftover = readRecord(pidFileOf(directory, name));
  while (leftover && isAlive(leftover)) {
    process.kill(leftover.pid, 'SIGKILL');
    await delay(10);
  }
}

const pidFileOf = (directory: string, name: string) => join(directory, 'run', `${name}.json`);
