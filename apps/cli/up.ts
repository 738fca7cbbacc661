import { join } from 'node:path';
import { applyMigrations } from '@longhaul/persistence/migrate';
import { freePort } from '@longhaul/persistence/embedded';
import { openDatabase } from './database.js';
import { fromEnvironment } from './environment.js';
import { claimHome, openHome, type Home } from './home.js';
import { readReadyFile, writeReadyFile } from './ready-file.js';
import { ensureSecretsKeys } from './secrets.js';
import { endLeftover, Service } from './service.js';
import { Shutdown } from './shutdown.js';
import { summary } from './summary.js';
import { openVms, type Vms } from './vms.js';

const DEFAULT_PORT = 7777;

/**
 * Runs all of Longhaul on this machine until a signal ends it: database, migrations, guest image, API, worker, and a first
 * VM. Whatever an earlier run left behind, however it ended, is adopted or ended. Resolves once all is ready.
 */
export async function up(): Promise<void> {
  const home = openHome();
  const other = claimHome(home);
  if (other) return alreadyRunning(home, other.pid);
  const shutdown = new Shutdown(say);
  try {
    await start(home, shutdown);
  } catch (error) {
    // Cut short by a signal: then it ends by itself.
    if (shutdown.signal.aborted) return;
    await shutdown.run();
    throw error;
  }
}

async function start(home: Home, shutdown: Shutdown): Promise<void> {
  await Promise.all(['api', 'worker'].map((name) => endLeftover(home, name)));
  const database = await openDatabase(home, say);
  shutdown.add('PostgreSQL', 40_000, () => database.stop());
  shutdown.signal.throwIfAborted();
  const applied = await applyMigrations(database.env.DATABASE_URL);
  if (applied.length > 0) say(`Database: ${applied.length} migrations applied`);

  const vms = await openVms(home, say);
  shutdown.add('VMs', 90_000, () => vms.suspendAll());
  shutdown.signal.throwIfAborted();

  const port = await apiPort(home);
  const env = { ...database.env, ...vms.env, ...ensureSecretsKeys(home), LONGHAUL_HOME: home.directory };
  const service = (name: string, extra: NodeJS.ProcessEnv = {}) =>
    new Service(
      { name, main: join(import.meta.dirname, '..', name, 'main.js'), env: { ...env, ...extra } },
      home,
      say,
    );
  const scheme = fromEnvironment('TLS_CERT_FILE') ? 'https' : 'http';
  const address = `${scheme}://127.0.0.1:${port}`;
  const worker = service('worker', {
    LONGHAUL_GUEST_GATEWAY: process.env.LONGHAUL_GUEST_GATEWAY || address,
    DRAIN_SECONDS: '0',
  });
  const api = service('api', { PORT: String(port), SHUTDOWN_DELAY_SECONDS: '0' });
  shutdown.add('worker', 20_000, () => worker.stop(15_000));
  shutdown.add('API', 10_000, () => api.stop(8_000));

  const slow = setTimeout(say, 3_000, 'Waiting for the API, the worker and the VM');
  const [{ token, vmId }] = await Promise.all([
    provide({ ...process.env, ...env }, vms, readReadyFile(home)?.token, shutdown.signal),
    api.start(),
    worker.start(),
  ]).finally(() => clearTimeout(slow));
  shutdown.signal.throwIfAborted();

  const ready = { mcp_url: `${address}/mcp`, api_url: address, token, vm_id: vmId };
  writeReadyFile(home, ready);
  console.log(summary(ready));
  say('Ctrl-C stops everything; commands that run in VMs go on at the next start.');
}

/**
 * First user, token and VM, and the other VMs that the last stop has suspended. Their jobs are submitted at once and wait
 * for the worker, which is just starting.
 */
async function provide(env: NodeJS.ProcessEnv, vms: Vms, lastToken: string | undefined, signal: AbortSignal) {
  const { openContext } = await import('./context.js');
  const { bringUp, ensureFirstUser, ensureFirstVm, ensureToken } = await import('./first-vm.js');
  const context = await openContext(env);
  try {
    const owner = await ensureFirstUser(context);
    const token = await ensureToken(context, owner, lastToken);
    const vm = await ensureFirstVm(context, owner);
    const suspended = (await vms.suspended()).filter((id) => id !== vm.id);
    const others = await context.db.vm.findMany({ where: { id: { in: suspended } } });
    const starts = [vm, ...others].map((each) =>
      bringUp(context, each, owner.userId, signal).catch((error: Error) => {
        if (!signal.aborted) say(`The VM ${each.hostname} did not start. ${error.message}`);
      }),
    );
    await Promise.all(starts);
    return { token, vmId: vm.id };
  } finally {
    await context.close();
  }
}

/** The port of PORT or of last time or 7777; a free one when that is taken. */
async function apiPort(home: Home): Promise<number> {
  const last = readReadyFile(home)?.api_url;
  const wanted = Number(fromEnvironment('PORT')) || (last ? Number(new URL(last).port) : DEFAULT_PORT);
  const port = await freePort(wanted);
  if (port !== wanted) say(`Port ${wanted} is taken: the API listens on ${port}`);
  return port;
}

function alreadyRunning(home: Home, pid: number): void {
  say(`Longhaul runs already in ${home.directory} (process ${pid}).`);
  const ready = readReadyFile(home);
  if (ready) console.log(summary(ready));
}

function say(message: string): void {
  console.log(`${new Date().toTimeString().slice(0, 8)} ${message}`);
}
