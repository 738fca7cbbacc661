import { randomUUID } from 'node:crypto';
import type { Vm } from '@longhaul/persistence';
import { codeOf } from '@longhaul/telemetry';
import { NoProcess } from '../../libs/vm-providers/qemu/qmp.js';
import type { Stack } from '../e2e/stack.js';
import { eventually } from '../support/eventually.js';
import { qemuPidsOf } from '../support/processes.js';
import type { Answer, CarefulClient } from './client.js';
import { MARKS, type Machine } from './machines.js';
import type { FaultKind } from './schedule.js';

/** A look into the guest takes seconds in an emulated one. */
const LOOK_SECONDS = 60;
const ON_AGAIN_MS = 300_000;

/** A VM of QEMU: whatever is to be known of its guest, the guest is asked for. */
export class QemuMachine implements Machine {
  readonly resets: Machine['resets'] = [];

  constructor(
    readonly name: string,
    readonly vm: Vm,
    readonly token: string,
    private readonly stack: Stack,
    private readonly client: CarefulClient,
  ) {}

  async breakIt(kind: FaultKind) {
    const reset = { from: Date.now(), until: Infinity };
    this.resets.push(reset);
    const over = () => void (reset.until = Date.now());
    if (kind === 'vm reset') {
      // A job of the workload may just have it off, or switch it off meanwhile.
      await this.stack.provider.reset(this.vm.id).catch((error: unknown) => {
        if (codeOf(error) !== 'vm_state_blocked' && !(error instanceof NoProcess)) throw error;
      });
      return over();
    }
    for (const pid of qemuPidsOf(this.vm.id)) process.kill(pid, 'SIGKILL');
    return () => this.switchOn().then(over);
  }

  marks(): Promise<string> {
    return this.ask(`cat /var/lib/longhaul/${MARKS} || true`);
  }

  async file(path: string): Promise<Buffer | undefined> {
    const { content, encoding } = await this.call('read_vm_file', { path, max_bytes: 65_536 });
    return typeof content === 'string' ? Buffer.from(content, encoding as BufferEncoding) : undefined;
  }

  /** But for what the look itself is. */
  async leftovers(): Promise<string[]> {
    const said = await this.ask(
      `grep -azh LONGHAUL_COMMAND_ID= /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -v "$LONGHAUL_COMMAND_ID" | sort -u
      ls -l /proc/$(pidof qemu-ga)/fd | grep -E 'longhaul/(jobs|epoch)|> /proc/' | grep -v "$LONGHAUL_COMMAND_ID"
      true`,
    );
    const lines = said.split('\n').filter(Boolean);
    return lines.map((line) => `in the guest of ${this.name}: ${line}`);
  }

  private async ask(command: string): Promise<string> {
    const answer = await this.call('exec_vm_command', { command, timeout_seconds: LOOK_SECONDS });
    if (answer.status !== 'succeeded') throw new Error(`${this.name}: ${JSON.stringify(answer)}`);
    return answer.stdout as string;
  }

  /** A job that fails, as all else is broken meanwhile, is made again. */
  private async switchOn(): Promise<void> {
    await eventually(
      async () => {
        const action = { action: 'start', idempotency_key: randomUUID() };
        const { job_id } = await this.call('power_vm', action);
        for (;;) {
          const job = await this.call('wait_for_job', { job_id, timeout_seconds: 20 });
          if (job.status !== 'queued' && job.status !== 'running') return job.status === 'succeeded';
        }
      },
      { withinMs: ON_AGAIN_MS, everyMs: 1_000 },
    );
  }

  private call(name: string, args: object): Promise<Answer> {
    const isOfJob = name === 'wait_for_job';
    return this.client.call(this.token, name, isOfJob ? args : { vm_id: this.vm.id, ...args });
  }
}
