import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from '../support/eventually.js';
import type { Answer, CarefulClient } from './client.js';
import { MARKS, type Machine } from './machines.js';
import { QemuMachine } from './qemu-machine.js';
import type { Random } from './random.js';

/** What a client wants. `look` makes a job without an idempotency key, which may be made again. */
export interface Wish {
  key: string;
  machine: Machine;
  kind: 'start' | 'exec' | 'install' | 'look' | 'power';
  /** Since the begin of the run: not before. */
  atMs: number;
  stdoutBytes: number;
  stderrBytes: number;
  seconds: number;
  exitCode: number;
  /** Of `exec`: it is meant to run into it. */
  timeoutSeconds?: number;
  /** Of `power`. */
  action?: 'reset' | 'reboot';
  /** Of `start`: cancelled so long after its id was answered. */
  cancelAfterMs?: number;
}

export interface Submission {
  wish: Wish;
  answer?: Answer;
  jobId?: string;
}

/** Clients that wish at once; more of them than VMs have slots, so that some are told to wait. */
const CLIENTS = 64;
/** Of the wishes, those for VMs of QEMU, which are emulated. */
const SLOW_SHARE = 0.04;

/** So many wishes over so much time, the same ones for the same seed. */
export function wishes(
  random: Random,
  jobs: number,
  durationMs: number,
  machines: readonly Machine[],
): Wish[] {
  const slow = machines.filter((machine) => machine instanceof QemuMachine);
  const agents = machines.filter((machine) => !slow.includes(machine as QemuMachine));
  return Array.from({ length: jobs }, (_, index) => {
    const isSlow = slow.length > 0 && (agents.length === 0 || random.next() < SLOW_SHARE);
    const machine = random.pick(isSlow ? slow : agents);
    const dice = random.next();
    const wish: Wish = {
      key: `${index}-${random.int(0, 0xffffff).toString(16)}`,
      machine,
      kind: 'start',
      atMs: Math.floor((index * durationMs) / jobs),
      stdoutBytes: isSlow ? random.int(0, 60_000) : sizeOf(random),
      stderrBytes: random.next() < 0.3 ? random.int(1, 2_000) : 0,
      seconds: random.next() < 0.3 ? 0 : random.int(1, 30) / 10,
      exitCode: random.next() < 0.7 ? 0 : random.int(1, 120),
    };
    if (isSlow && dice < 0.1)
      return { ...wish, kind: 'power', action: random.pick(['reset', 'reboot'] as const) };
    if (dice < 0.1) return { ...wish, kind: 'exec' };
    if (dice < 0.14) return { ...wish, kind: 'exec', timeoutSeconds: 1, seconds: 20 };
    if (dice < 0.21) return { ...wish, cancelAfterMs: random.int(0, 4_000), seconds: random.int(0, 10) };
    if (dice < 0.26)
      return { ...wish, kind: 'install', stdoutBytes: random.int(0, isSlow ? 60_000 : 300_000) };
    if (dice < 0.31) return { ...wish, kind: 'look' };
    return wish;
  });
}

function sizeOf(random: Random): number {
  const dice = random.next();
  if (dice < 0.1) return 0;
  if (dice < 0.7) return random.int(1, 4_000);
  if (dice < 0.97) return random.int(4_000, 100_000);
  return random.int(1_000_000, 1_600_000);
}

/** Notes begin and end where they survive a reset, and prints half of the output before it waits and half after. */
export function commandOf({ key, stdoutBytes, stderrBytes, seconds, exitCode }: Wish): string {
  const half = Math.floor(stdoutBytes / 2);
  const print = (name: string, bytes: number) =>
    `seq -f '${key} ${name} %09.0f' ${Math.ceil(bytes / lineOf(key, name, 1).length)} | head -c ${bytes}`;
  return [
    `mark() { echo "${key} $*" >>/var/lib/longhaul/${MARKS}; sync /var/lib/longhaul/${MARKS}; }`,
    'mark begin',
    print('a', half),
    `${print('e', stderrBytes)} >&2`,
    `sleep ${seconds}`,
    print('b', stdoutBytes - half),
    `mark end ${exitCode}`,
    `exit ${exitCode}`,
  ].join('\n');
}

export function outputOf({ key, stdoutBytes, stderrBytes }: Wish): { stdout: Buffer; stderr: Buffer } {
  const half = Math.floor(stdoutBytes / 2);
  return {
    stdout: Buffer.concat([printed(key, 'a', half), printed(key, 'b', stdoutBytes - half)]),
    stderr: printed(key, 'e', stderrBytes),
  };
}

export const fileOf = ({ key, stdoutBytes }: Wish) => ({
  path: `/var/lib/chaos-${key}`,
  content: printed(key, 'f', stdoutBytes),
});

const lineOf = (key: string, name: string, number: number) =>
  `${key} ${name} ${String(number).padStart(9, '0')}\n`;

function printed(key: string, name: string, bytes: number): Buffer {
  const lines = Math.ceil(bytes / lineOf(key, name, 1).length);
  let text = '';
  for (let number = 1; number <= lines; number++) text += lineOf(key, name, number);
  return Buffer.from(text.slice(0, bytes));
}

/** Fulfils all wishes, each not before its time; resolves when all are answered or the client's time is over. */
export async function work(client: CarefulClient, all: readonly Wish[]): Promise<Submission[]> {
  const begun = performance.now();
  const submissions = all.map((wish): Submission => ({ wish }));
  const waiting = submissions.values();
  const one = async () => {
    for (const submission of waiting) {
      await pause(Math.max(0, submission.wish.atMs - (performance.now() - begun)));
      // Without an answer: the time is over.
      await submit(client, submission).catch(() => undefined);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, one));
  return submissions;
}

async function submit(client: CarefulClient, submission: Submission): Promise<void> {
  const { wish } = submission;
  const { machine, key: idempotency_key, kind, timeoutSeconds, cancelAfterMs } = wish;
  const call = (name: string, args: object) => client.call(machine.token, name, args);
  const vm_id = machine.vm.id;
  const command = kind === 'start' || kind === 'exec' ? commandOf(wish) : undefined;
  switch (kind) {
    case 'start':
      submission.answer = await call('start_vm_command', { vm_id, command, idempotency_key });
      break;
    case 'exec': {
      const timeout_seconds = timeoutSeconds ?? 60;
      submission.answer = await call('exec_vm_command', { vm_id, command, timeout_seconds, idempotency_key });
      break;
    }
    case 'install':
      submission.answer = await install(client, wish);
      break;
    case 'look':
      submission.answer = await call('read_vm_file', { vm_id, path: '/etc/os-release' });
      break;
    case 'power':
      submission.answer = await call('power_vm', { vm_id, action: wish.action, idempotency_key });
  }
  const { command_id, job_id } = submission.answer;
  submission.jobId = (command_id ?? job_id) as string | undefined;
  if (cancelAfterMs === undefined || !submission.jobId) return;
  await pause(cancelAfterMs);
  await call('cancel_vm_command', { command_id: submission.jobId });
}

async function install(client: CarefulClient, wish: Wish): Promise<Answer> {
  const { machine, key } = wish;
  const { path, content } = fileOf(wish);
  const facts = {
    filename: key,
    size_bytes: content.length,
    sha256: createHash('sha256').update(content).digest('hex'),
    purpose: 'file',
  };
  for (;;) {
    const vm_id = machine.vm.id;
    const announced = await client.call(machine.token, 'create_artifact_upload', { vm_id, ...facts });
    const { url, headers, artifact_id } = announced as unknown as Record<'url' | 'artifact_id', string> & {
      headers: Record<string, string>;
    };
    const put = async () => {
      const signal = AbortSignal.timeout(20_000);
      return (await fetch(url, { method: 'PUT', headers, body: new Uint8Array(content), signal })).ok;
    };
    // The address holds for 15 minutes: with one announced for each try, a project soon has all that it may have pending.
    const isUploaded = await eventually(put, { withinMs: 120_000, everyMs: 500 }).catch(() => false);
    if (!isUploaded) continue;
    const args = { vm_id, artifact_id, destination_path: path, idempotency_key: key };
    return client.call(machine.token, 'install_artifact', args);
  }
}
