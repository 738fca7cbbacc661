import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startTimeOf } from '@longhaul/persistence/embedded';
import { QemuProvider } from '@longhaul/vm-providers';
import { eventually } from '../support/eventually.js';
import { IMAGES } from './stack.js';

const CLI = join(import.meta.dirname, '../../dist/apps/cli/main.js');
const READY = 'Longhaul is ready.';

interface Ready {
  mcp_url: string;
  api_url: string;
  token: string;
  vm_id: string;
}

let home: string;
let running: Up | undefined;

/** `longhaul up` as a user runs it, but on a home of the test's own. */
class Up {
  output = '';
  readonly process: ChildProcess;

  constructor(env: NodeJS.ProcessEnv = {}) {
    this.process = spawn(process.execPath, [CLI, 'up'], {
      env: {
        ...process.env,
        DATABASE_URL: '',
        QUEUE_URL: '',
        PORT: '',
        LONGHAUL_IMAGES: IMAGES,
        LONGHAUL_HOME: home,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.on('data', (data: Buffer) => (this.output += data.toString()));
    }
  }

  async ready(): Promise<Ready> {
    await eventually(
      () => {
        if (this.process.exitCode !== null) throw new Error(this.output);
        return this.output.includes(READY);
      },
      { withinMs: 60_000 },
    );
    return JSON.parse(readFileSync(join(home, 'ready.json'), 'utf8')) as Ready;
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    const ended = once(this.process, 'exit') as Promise<[number | null]>;
    this.process.kill(signal);
    return (await ended)[0];
  }
}

async function up(env?: NodeJS.ProcessEnv): Promise<{ ready: Ready }> {
  running = new Up(env);
  return { ready: await running.ready() };
}

async function callTool(
  { mcp_url: url, token }: Ready,
  name: string,
  args: object,
): Promise<Record<string, unknown>> {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${token}`,
      'Content-Type': 'application/json',
      Accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
  });
  const data = /^data: (.*)$/m.exec(await response.text())?.[1] ?? '{}';
  const { result } = JSON.parse(data) as { result: { structuredContent?: Record<string, unknown> } };
  if (!result.structuredContent) throw new Error(data);
  return result.structuredContent;
}

const pidOf = (file: string) =>
  (JSON.parse(readFileSync(join(home, 'run', file), 'utf8')) as { pid: number }).pid;
const postgresPid = () =>
  Number(readFileSync(join(home, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0]);

const provider = () =>
  new QemuProvider({
    home,
    imagesDirectory: IMAGES,
    accelerator: 'auto',
    runAsUser: process.getuid?.() === 0 ? 'longhaul' : undefined,
  });

beforeAll(() => {
  home = mkdtempSync('/tmp/lh-');
  chmodSync(home, 0o755);
});

afterAll(async () => {
  if (running && running.process.exitCode === null && running.process.signalCode === null)
    await running.end('SIGTERM');
  for (const id of await provider().list()) await provider().delete(id);
  rmSync(home, { recursive: true, force: true });
});

describe('longhaul up', () => {
  let first: Ready;
  let commandId: string;

  it('brings everything up and says how to use it', async () => {
    first = (await up()).ready;
    expect(statSync(join(home, 'ready.json')).mode & 0o777).toBe(0o600);
    expect(running?.output).toContain(`claude mcp add --transport http longhaul ${first.mcp_url}`);
    const result = await callTool(first, 'exec_vm_command', {
      vm_id: first.vm_id,
      command: 'echo from the guest',
    });
    expect(result).toMatchObject({ exit_code: 0, stdout: 'from the guest\n' });
  }, 120_000);

  it('runs once: a second one shows the summary and ends', async () => {
    const second = new Up();
    const [code] = (await once(second.process, 'exit')) as [number];
    expect(code).toBe(0);
    expect(second.output).toContain('runs already');
    expect(second.output).toContain(first.token);
  }, 20_000);

  it('after everything was killed at once, finds the VM and the command in it', async () => {
    const command = 'for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done';
    const started = await callTool(first, 'start_vm_command', { vm_id: first.vm_id, command });
    commandId = started.command_id as string;
    await eventually(
      async () => (await callTool(first, 'get_vm_command_output', { command_id: commandId })).stdout,
    );
    // The order that gives nobody time to react: the worker and the API would end when `up` does.
    for (const pid of [pidOf('worker.json'), pidOf('api.json'), running?.process.pid ?? 0, postgresPid()]) {
      process.kill(pid, 'SIGKILL');
    }
    await eventually(() => running?.process.signalCode);

    const { ready } = await up();
    expect(ready).toEqual(first);
    const ended = await eventually(
      async () => {
        const output = await callTool(ready, 'get_vm_command_output', { command_id: commandId });
        return output.status === 'succeeded' && output;
      },
      // The lease of the killed worker has to run out first.
      { withinMs: 60_000 },
    );
    expect(ended).toMatchObject({ exit_code: 0, stdout: '1\n2\n3\n4\n5\n6\n7\n8\n' });
  }, 90_000);

  it('starts the API again when it dies', async () => {
    const pid = pidOf('api.json');
    process.kill(pid, 'SIGKILL');
    await eventually(() => pidOf('api.json') !== pid);
    const vms = await eventually(() => callTool(first, 'list_vms', {}), { withinMs: 20_000 });
    expect(vms).toMatchObject({ vms: [{ id: first.vm_id }] });
  }, 30_000);

  it('stops everything in order on SIGTERM, and goes on with a command at the next start', async () => {
    const command = 'for i in 1 2 3 4 5; do echo $i; sleep 1; done';
    const started = await callTool(first, 'start_vm_command', { vm_id: first.vm_id, command });
    await eventually(
      async () => (await callTool(first, 'get_vm_command_output', { command_id: started.command_id })).stdout,
    );
    const pids = [pidOf('worker.json'), pidOf('api.json'), postgresPid()];
    expect(await running?.end('SIGTERM')).toBe(0);
    for (const pid of pids) expect(startTimeOf(pid)).toBeUndefined();
    expect(await provider().observe(first.vm_id)).toMatchObject({ power: 'suspended' });

    const { ready } = await up();
    const ended = await eventually(
      async () => {
        const output = await callTool(ready, 'get_vm_command_output', { command_id: started.command_id });
        return output.status === 'succeeded' && output;
      },
      { withinMs: 30_000 },
    );
    expect(ended).toMatchObject({ exit_code: 0, stdout: '1\n2\n3\n4\n5\n' });
  }, 120_000);

  it('makes a new token when ready.json is gone, and keeps the VM', async () => {
    await running?.end('SIGTERM');
    rmSync(join(home, 'ready.json'));
    const { ready } = await up();
    expect(ready.vm_id).toBe(first.vm_id);
    expect(ready.token).not.toBe(first.token);
    expect(readdirSync(join(home, 'run')).filter((name) => name.startsWith('up.'))).toHaveLength(1);
    await running?.end('SIGTERM');
    expect(existsSync(join(home, 'postgres/data/postmaster.pid'))).toBe(false);
  }, 60_000);
});
