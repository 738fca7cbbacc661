import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { Caller } from '@longhaul/access';
import { BullDelivery, QueueConnection } from '@longhaul/job-queue';
import { Jobs, isFinal, type JobKind } from '@longhaul/jobs';
import type { Job, Vm } from '@longhaul/persistence';
import { vmCreate } from '@longhaul/toolsets/vms/vm-create.job';
import { vmPower, type POWER_ACTIONS } from '@longhaul/toolsets/vms/vm-power.job';
import { QemuProvider } from '@longhaul/vm-providers';
import {
  Client as ClientV2,
  StreamableHTTPClientTransport as TransportV2,
} from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { TEST_SECRETS_KEYS, makeUser, makeVm, testDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';

export const IMAGES = process.env.TEST_IMAGES ?? '/var/lib/longhaul/images';
export const SYSTEM_USER = process.getuid?.() === 0 ? 'longhaul' : undefined;
/** Much shorter than the default, so that tests do not wait for it. */
export const LEASE_SECONDS = 6;
const DIST = join(import.meta.dirname, '../../dist/apps');

export type Answer = Record<string, unknown> & { isError: boolean };

export interface StackOptions {
  redis?: boolean;
  /** For the API and all workers. */
  env?: NodeJS.ProcessEnv;
  /** Is given each line that they print, which then goes nowhere else. */
  output?: (line: string) => void;
}

/** Everything that a user has, as real processes: API, workers, VMs, database and queue of the spec's own. */
export class Stack {
  readonly processes = new Set<ChildProcess>();
  readonly clients: { close(): Promise<void> }[] = [];
  readonly vms: string[] = [];
  url = '';

  private constructor(
    readonly database: TestDatabase,
    readonly home: string,
    readonly queueUrl: string,
    readonly jobs: Jobs,
    readonly delivery: BullDelivery,
    readonly token: string,
    readonly caller: Caller,
    readonly provider: QemuProvider,
    private readonly options: StackOptions,
  ) {}

  static async start(options: StackOptions = {}): Promise<Stack> {
    const database = await testDatabase();
    const queueUrl = options.redis ? process.env.TEST_REDIS_URL! : database.url;
    const stack = await Stack.on(database, queueUrl, options);
    await stack.startApi();
    return stack;
  }

  /** With no process yet. */
  static async on(database: TestDatabase, queueUrl: string, options: StackOptions = {}): Promise<Stack> {
    // Short, as sockets live below it; and open to the user that QEMU runs as.
    const home = mkdtempSync('/tmp/lh-');
    chmodSync(home, 0o755);
    const connection = await QueueConnection.open({ DATABASE_URL: database.url, QUEUE_URL: queueUrl });
    const delivery = new BullDelivery(connection);
    await delivery.onModuleInit();
    const jobs = new Jobs(database.db, database.audit, delivery, database.changes);
    const { token, caller } = await makeUser(database.db);
    const provider = new QemuProvider({
      home,
      imagesDirectory: IMAGES,
      accelerator: 'auto',
      runAsUser: SYSTEM_USER,
    });
    return new Stack(database, home, queueUrl, jobs, delivery, token, caller, provider, options);
  }

  async startApi(): Promise<ChildProcess> {
    const port = this.url ? new URL(this.url).port : '0';
    const { process: api, ready } = await this.spawn('api', { PORT: port });
    this.url = `http://127.0.0.1:${ready.port}/mcp`;
    return api;
  }

  /** `failpoint`: where the worker ends itself, see libs/config/failpoint.ts. */
  async startWorker(failpoint = ''): Promise<ChildProcess> {
    return (await this.spawn('worker', { LONGHAUL_FAILPOINT: failpoint })).process;
  }

  private envOf(app: 'api' | 'worker'): NodeJS.ProcessEnv {
    // What a test does in a minute is more than a user does.
    if (app === 'api') return { RATE_CALLS: '1000000', SHUTDOWN_DELAY_SECONDS: '0' };
    return {
      LONGHAUL_GUEST_GATEWAY: new URL(this.url).origin,
      LONGHAUL_IMAGES: IMAGES,
      JOB_LEASE_SECONDS: String(LEASE_SECONDS),
      ...(SYSTEM_USER && { VM_USER: SYSTEM_USER }),
    };
  }

  /** The built process, of the build in `apps`, once it is ready; `env` goes before what it is given anyway. */
  async spawn(app: 'api' | 'worker', env: NodeJS.ProcessEnv, apps = DIST) {
    const child = spawn(process.execPath, ['--enable-source-maps', join(apps, app, 'main.js')], {
      env: {
        PATH: process.env.PATH,
        DATABASE_URL: this.database.url,
        SECRETS_KEYS: TEST_SECRETS_KEYS,
        QUEUE_URL: this.queueUrl,
        LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'warn',
        LONGHAUL_HOME: this.home,
        ...this.envOf(app),
        ...this.options.env,
        ...env,
      },
      stdio: ['ignore', this.options.output ? 'pipe' : 'inherit', 'inherit', 'ipc'],
    });
    if (this.options.output) createInterface(child.stdout!).on('line', this.options.output);
    this.processes.add(child);
    child.once('exit', () => this.processes.delete(child));
    const [ready] = (await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => {
        throw new Error(`${app} ended before it was ready`);
      }),
    ])) as [{ port: number }];
    return { process: child, ready };
  }

  /** A VM of the caller, running, made by a job; a worker must be there. */
  async createVm(values: Parameters<typeof makeVm>[2] = {}): Promise<Vm> {
    const vm = await makeVm(this.database.db, this.caller, { powerState: 'unknown', ...values });
    this.vms.push(vm.id);
    await this.run(vmCreate, {}, vm);
    return this.database.db.vm.findUniqueOrThrow({ where: { id: vm.id } });
  }

  power(vm: Vm, action: (typeof POWER_ACTIONS)[number]): Promise<Job> {
    return this.run(vmPower, { action }, vm);
  }

  private async run<P>(kind: JobKind<P>, payload: P, vm: Vm): Promise<Job> {
    const by = { userId: this.caller.userId };
    const { id } = await this.jobs.submit({ kind, payload, by, projectId: vm.projectId, vm });
    const job = await this.jobs.wait(id, ({ state }) => isFinal(state), 240_000);
    if (job.state !== 'succeeded')
      throw new Error(`${kind.name} ended ${job.state}: ${JSON.stringify(job.error)}`);
    return job;
  }

  job(id: string): Promise<Job> {
    return this.database.db.job.findUniqueOrThrow({ where: { id } });
  }

  ended(id: string, withinMs = 240_000): Promise<Job> {
    return this.jobs.wait(id, ({ state }) => isFinal(state), withinMs);
  }

  /** `path` follows the address, such as `/x/all` for every toolset. */
  async clientV2(token = this.token, path = '') {
    const client = new ClientV2({ name: 'e2e-v2', version: '1' });
    const url = new URL(`${this.url}${path}`);
    await client.connect(new TransportV2(url, { requestInit: { headers: bearer(token) } }));
    this.clients.push(client);
    return caller((name, args) => client.callTool({ name, arguments: args }, { timeout: 70_000 }));
  }

  async clientV1(token = this.token) {
    const client = new ClientV1({ name: 'e2e-v1', version: '1' });
    await client.connect(new TransportV1(new URL(this.url), { requestInit: { headers: bearer(token) } }));
    this.clients.push(client);
    return caller((name, args) => client.callTool({ name, arguments: args }, undefined, { timeout: 70_000 }));
  }

  /** The command line, as somebody on the server types it. */
  async longhaul(...args: string[]): Promise<{ code: number; out: string; err: string }> {
    const env = {
      PATH: process.env.PATH,
      DATABASE_URL: this.database.url,
      LONGHAUL_HOME: this.home,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
    };
    const run = promisify(execFile)(process.execPath, [join(DIST, 'cli/main.js'), ...args], { env });
    return run.then(
      ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
      ({ code, stdout, stderr }) => ({ code, out: stdout, err: stderr }),
    );
  }

  /** Into the caller's project, with commands let in. */
  adopt(...args: string[]) {
    return this.longhaul('vm', 'adopt', ...args, '--project', `project-${this.caller.userId}`, '--exec');
  }

  announce(call: Call, vmId: string, bytes: Buffer): Promise<Answer> {
    const what = { filename: 'blob', size_bytes: bytes.length, sha256: sha256(bytes), purpose: 'file' };
    return call('create_artifact_upload', { vm_id: vmId, ...what });
  }

  /** The artifact's id. */
  async upload(call: Call, vmId: string, bytes: Buffer): Promise<string> {
    const announced = await this.announce(call, vmId, bytes);
    const { pathname, search } = new URL(announced.url as string);
    const put = { method: 'PUT', headers: announced.headers as Record<string, string>, body: bytes };
    const { status } = await fetch(new URL(pathname + search, this.url), put);
    if (status !== 204) throw new Error(`upload: ${status}`);
    return announced.artifact_id as string;
  }

  async killWorkers(): Promise<void> {
    await killAll(
      [...this.processes].filter(({ spawnargs }) => spawnargs.some((arg) => arg.includes('/worker/'))),
    );
  }

  async stop(): Promise<void> {
    await Promise.allSettled(this.clients.map((client) => client.close()));
    await killAll([...this.processes]);
    for (const id of this.vms) await this.provider.delete(id);
    await this.delivery.onApplicationShutdown();
    await this.database.drop();
    rmSync(this.home, { recursive: true, force: true });
  }
}

async function killAll(processes: ChildProcess[]): Promise<void> {
  const ended = processes.map((child) => once(child, 'exit'));
  for (const child of processes) child.kill('SIGKILL');
  await Promise.all(ended);
}

export type Call = (name: string, args?: Record<string, unknown>) => Promise<Answer>;

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** Structured content where there is some, be it of a job that ended badly, else the error body. */
function caller(send: (name: string, args: Record<string, unknown>) => Promise<unknown>): Call {
  return async (name, args = {}) => {
    const result = (await send(name, args)) as {
      isError?: boolean;
      structuredContent?: Record<string, unknown>;
      content: { text: string }[];
    };
    const body = result.structuredContent ?? JSON.parse(result.content[0]!.text).error;
    return { ...body, isError: result.isError === true };
  };
}

/**
 * Reads a command's streams by offset until both have ended, as a polling client does; `whileOpen` sees the number of
 * bytes read before the end was known.
 */
export async function readToEnd(
  call: Call,
  commandId: string,
  whileOpen: (bytes: number, status: string) => void = () => {},
): Promise<{ stdout: Buffer; stderr: Buffer; status: string }> {
  const parts: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
  let [stdoutOffset, stderrOffset] = [0, 0];
  for (;;) {
    const log = await call('read_vm_command_logs', {
      command_id: commandId,
      stdout_offset: stdoutOffset,
      stderr_offset: stderrOffset,
      max_bytes: 65_536,
    });
    if (log.isError) throw new Error(JSON.stringify(log));
    const before = stdoutOffset + stderrOffset;
    for (const stream of ['stdout', 'stderr'] as const) {
      parts[stream].push(Buffer.from(log[stream] as string, log[`${stream}_encoding`] as BufferEncoding));
    }
    stdoutOffset = log.next_stdout_offset as number;
    stderrOffset = log.next_stderr_offset as number;
    if (log.stdout_eof && log.stderr_eof) {
      return {
        stdout: Buffer.concat(parts.stdout),
        stderr: Buffer.concat(parts.stderr),
        status: log.status as string,
      };
    }
    whileOpen(stdoutOffset + stderrOffset, log.status as string);
    // Nothing new yet: wait for the job's end, or a moment, as a client would.
    if (stdoutOffset + stderrOffset === before)
      await call('wait_for_job', { job_id: commandId, timeout_seconds: 1 });
  }
}

/** A job's end as wait_for_job tells it first, which is where a password is told. */
export async function endOf(
  call: Call,
  { job_id: jobId, ...answer }: Answer,
  withinMs = 300_000,
): Promise<Answer> {
  if (!jobId) throw new Error(JSON.stringify(answer));
  return eventually(
    async () => {
      const job = await call('wait_for_job', { job_id: jobId, timeout_seconds: 20 });
      return job.status !== 'queued' && job.status !== 'running' && job;
    },
    { withinMs },
  );
}

/** Whether a guest with this line in its /etc/shadow lets somebody in by the password. */
export function isHashOf(hash: string, password: unknown): boolean {
  const program = 'print crypt($ARGV[0], $ARGV[1])';
  const made = execFileSync('perl', ['-e', program, String(password), hash], { encoding: 'utf8' });
  return hash.startsWith('$') && made === hash;
}

export const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
