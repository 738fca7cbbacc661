import { readToEnd, sha256, type Call } from '../e2e/stack.js';

const PIECE_BYTES = 10_000;
let serial = 0;

/** A command that tells its runs, and what it has printed, from any other. */
export interface Counted {
  id: string;
  vmId: string;
  /** File in the guest with a line for each run. */
  counter: string;
  pieces: number;
}

/** Prints for some seconds in pieces, 0.3 s apart, then says on stderr what SHA-256 that has, and ends with exit code 7. */
export async function startCounted(
  call: Call,
  vmId: string,
  pieces: number,
  folder = '/run',
): Promise<Counted> {
  const counter = `${folder}/count-${++serial}`;
  const print = `head -c ${PIECE_BYTES} /dev/urandom | tee -a ${counter}.out`;
  const command = `echo run >> ${counter}; for i in $(seq ${pieces}); do ${print}; sleep 0.3; done; sha256sum ${counter}.out | cut -d' ' -f1 >&2; exit 7`;
  const args = { vm_id: vmId, command, idempotency_key: `${vmId}${counter}` };
  const { command_id: id } = await call('start_vm_command', args);
  return { id: id as string, vmId, counter, pieces };
}

/** Resolves once some of its output is stored. */
export const hasPrinted = async (call: Call, { id }: Counted) =>
  Number((await call('read_vm_command_logs', { command_id: id })).next_stdout_offset) > 0;

/** It ends as it should, its log is what it has printed, byte for byte, and it began once. */
export async function expectOneRun(call: Call, { id, vmId, counter, pieces }: Counted): Promise<void> {
  const log = await readToEnd(call, id);
  expect(await call('get_job', { job_id: id })).toMatchObject({ status: 'failed', result: { exit_code: 7 } });
  expect(log.stdout).toHaveLength(pieces * PIECE_BYTES);
  expect(sha256(log.stdout)).toBe(log.stderr.toString().trim());
  const runs = await call('exec_vm_command', { vm_id: vmId, command: `wc -l < ${counter}` });
  expect(runs).toMatchObject({ stdout: '1\n' });
}
