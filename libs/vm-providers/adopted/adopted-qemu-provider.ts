import { AppError } from '@longhaul/errors';
import { AgentChannel, type GuestChannel } from '@longhaul/guest';
import type { VmAbility, VmMetrics, VmObservation } from '../provider.js';
import { pressReset, tryGreeting, waitForPowerOff } from '../qemu/boot.js';
import { poll } from '../qemu/programs.js';
import { NoProcess, withQmp, type QmpFiles } from '../qemu/qmp.js';
import { AdoptedProvider } from './adopted-provider.js';
import type { QemuConnection } from './connections.js';

const BOOT_MS = 240_000;
const QUIT_MS = 10_000;
const CRASHED = ['internal-error', 'guest-panicked', 'io-error'];

/** VMs whose QEMU process somebody else has started and looks after: we talk to its sockets, and never start one. */
export class AdoptedQemuProvider extends AdoptedProvider<QemuConnection> {
  override readonly name = 'adopted-qemu';
  override readonly abilities: ReadonlySet<VmAbility> = new Set<VmAbility>(['power']);

  override async observe(id: string): Promise<VmObservation> {
    const connection = await this.options.machines.find(id);
    if (!connection) return { power: 'absent' };
    const state = await this.state(this.files(id, connection));
    if (state === undefined || state === 'shutdown') return { power: 'stopped' };
    if (state === 'running') return { power: 'running' };
    return { power: CRASHED.includes(state) ? 'crashed' : 'paused' };
  }

  override async start(id: string): Promise<void> {
    const files = await this.qmpFiles(id);
    const state = await this.state(files);
    if (state === undefined) throw gone();
    // Kept by QEMU's -no-shutdown.
    if (state === 'shutdown' || CRASHED.includes(state)) await withQmp(files, pressReset);
    if (state !== 'running') await withQmp(files, (qmp) => qmp.execute('cont'));
    await this.waitForGuest(id);
  }

  /** Ends the QEMU process: whoever started it has to do so again. */
  override async stop(id: string): Promise<void> {
    const connection = await this.options.machines.find(id);
    if (!connection) return;
    const files = this.files(id, connection);
    // It may go away before it has answered.
    await withQmp(files, (qmp) => qmp.execute('quit')).catch(ifGone(undefined));
    const isGone = async () => ((await this.state(files)) === undefined ? true : undefined);
    if (!(await poll(isGone, QUIT_MS)))
      throw new AppError('unavailable', 'The hypervisor process of the VM does not end.');
  }

  override async shutdown(id: string, timeoutMs: number): Promise<boolean> {
    const files = await this.qmpFiles(id);
    const state = await this.state(files);
    if (state === undefined || state === 'shutdown') return true;
    if (state !== 'running') throw new AppError('vm_state_blocked', `The VM is ${state}. Start it first.`);
    await withQmp(files, (qmp) => qmp.execute('system_powerdown'));
    return waitForPowerOff(files, timeoutMs);
  }

  override async reset(id: string): Promise<void> {
    const files = await this.qmpFiles(id);
    const state = await this.state(files);
    if (state === undefined) throw gone();
    await withQmp(files, pressReset);
    if (state !== 'running') await withQmp(files, (qmp) => qmp.execute('cont'));
    await this.waitForGuest(id);
  }

  override async metrics(id: string): Promise<VmMetrics> {
    const files = await this.qmpFiles(id);
    const query = withQmp(files, (qmp) =>
      qmp.execute<{ 'base-memory': number }>('query-memory-size-summary'),
    );
    return query.then((memory) => ({ memoryBytes: memory['base-memory'] }), ifGone({}));
  }

  protected open(id: string, { agent }: QemuConnection): GuestChannel {
    return new AgentChannel({ socketPath: agent, lockDirectory: this.lockDirectory(id) });
  }

  protected leave(): void {}

  private async qmpFiles(id: string): Promise<QmpFiles> {
    return this.files(id, await this.found(id));
  }

  private files(id: string, { qmp, uuid }: QemuConnection): QmpFiles {
    return { id: uuid, qmp: [qmp], locks: this.lockDirectory(id) };
  }

  /** As `query-status` says; undefined when there is no process. */
  private state(files: QmpFiles): Promise<string | undefined> {
    const query = withQmp(files, (qmp) => qmp.execute<{ status: string }>('query-status'));
    return query.then(({ status }) => status, ifGone(undefined));
  }

  private async waitForGuest(id: string): Promise<void> {
    const answers = () => tryGreeting(this.guest(id), (session) => session.ping());
    if (await poll(answers, BOOT_MS, 500)) return;
    throw new AppError('guest_unreachable', 'The guest did not answer in time after it was started.');
  }
}

const gone = () =>
  new AppError(
    'vm_state_blocked',
    'The QEMU process of this VM is gone. It was adopted, so it cannot be started from here: start it as it was before.',
  );

function ifGone<T>(value: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof NoProcess) return value;
    throw error;
  };
}
