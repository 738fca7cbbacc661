import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './support/eventually.js';
import { makeVm, testDatabase } from './support/database.js';
import { namespaceAgentLacks, startNamespaceAgent, type NamespaceAgent } from './support/namespace-agent.js';
import { Stack, readToEnd } from './e2e/stack.js';

// What docs/operations.md promises about upgrades: on a database of the newer schema, an API and a worker of two versions one
// commit apart work together, and a worker of one goes on with what one of the other has begun.

const ROOT = join(import.meta.dirname, '..');
const git = (...args: string[]) =>
  execFileSync('git', args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 28 });

/** Undefined in a copy without history, or with one commit of it. */
const previous = (() => {
  try {
    return git('rev-parse', '--verify', '--short', 'HEAD^').toString().trim();
  } catch {
    return undefined;
  }
})();
const older = previous ? `the commit before (${previous})` : 'the same build, as there is no commit before';
const lacks = namespaceAgentLacks();

(lacks ? describe.skip : describe)(
  `with ${older}${lacks ? `, not tested here, as that needs ${lacks}` : ''}`,
  () => {
    const current = join(ROOT, 'dist/apps');
    let before = current;
    let directory: string | undefined;
    let agent: NamespaceAgent;
    let stack: Stack;

    beforeAll(async () => {
      if (previous) {
        directory = mkdtempSync(join(tmpdir(), 'longhaul-before-'));
        execFileSync('tar', ['-x', '-C', directory], { input: git('archive', previous) });
        symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
        execFileSync('npm', ['run', '--silent', 'build'], { cwd: directory });
        before = join(directory, 'dist/apps');
      }
    });
    afterAll(() => {
      if (directory) rmSync(directory, { recursive: true });
    });

    beforeEach(async () => {
      const database = await testDatabase();
      stack = await Stack.on(database, database.url);
      agent = await startNamespaceAgent();
    });
    afterEach(async () => {
      await stack.stop();
      await agent.stop();
    });

    it.each([
      ['a newer API, an older worker', true],
      ['an older API, a newer worker', false],
    ])('%s: a command runs, and a worker of the other version goes on with it', async (_what, isNewApi) => {
      const [ofApi, ofOther] = isNewApi ? [current, before] : [before, current];
      const { ready } = await stack.spawn('api', { PORT: '0' }, ofApi);
      stack.url = `http://127.0.0.1:${ready.port}/mcp`;
      const { process: worker } = await stack.spawn('worker', {}, ofOther);
      const vm = await makeVm(stack.database.db, stack.caller, {
        provider: 'guest-agent',
        connection: { agent: agent.socketPath },
      });
      const call = await stack.clientV2();
      const command = 'echo begun; while [ ! -e /var/lib/longhaul/go ]; do sleep 0.1; done; echo ended';
      const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command });
      const written = async () =>
        (await call('read_vm_command_logs', { command_id: id })).next_stdout_offset as number;
      await eventually(async () => (await written()) > 0, { withinMs: 60_000 });

      await stack.spawn('worker', {}, ofApi);
      worker.kill('SIGTERM');
      await eventually(async () => (await stack.job(id as string)).attempt === 2, { withinMs: 60_000 });
      writeFileSync(join(agent.stateDirectory, 'go'), '');

      const { stdout, status } = await readToEnd(call, id as string);
      expect({ status, stdout: stdout.toString() }).toEqual({
        status: 'succeeded',
        stdout: 'begun\nended\n',
      });
    });
  },
);
