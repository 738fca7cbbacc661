import { ERROR_CODES, type ErrorCode } from '@longhaul/errors';
import type { Job } from '@longhaul/persistence';
import type { TestDatabase } from '../support/database.js';
import { readToEnd, type Call } from '../e2e/stack.js';
import type { CarefulClient } from './client.js';
import type { Happened } from './faults.js';
import type { Machine } from './machines.js';
import { fileOf, outputOf, type Submission, type Wish } from './workload.js';

/** `lost` is all that a client was promised and did not get, a wrong end as well as none. */
export interface Violation {
  verdict: 'lost' | 'run_twice' | 'log_gaps' | 'leftovers';
  what: string;
  jobId?: string;
}

type Ended = Job & { result: { exit_code?: number } | null; error: { code: ErrorCode } | null };

/** Of jobs that were never begun, and say so. */
const NOT_BEGUN = new Set<ErrorCode>([
  'guest_unreachable',
  'queue_timeout',
  'host_unreachable',
  'command_not_started',
]);
const READERS = 8;
/** What a client of something that is no command is told when what it takes was away. */
const mayBeRepeated = (code: ErrorCode) => ERROR_CODES[code].retryable && code !== 'internal';

/** Checks all that was submitted against what the guests say, once everything is healed and has ended. */
export class Oracle {
  private readonly violations: Violation[] = [];
  private readonly resets = new Map<Machine, Machine['resets']>();

  constructor(
    private readonly database: TestDatabase,
    private readonly client: CarefulClient,
  ) {}

  async judge(submissions: readonly Submission[]): Promise<Violation[]> {
    const jobs = await this.database.db.job.findMany();
    const byKey = new Map(jobs.map((job) => [job.idempotencyKey, job as Ended]));
    const marks = new Map<string, string[]>();
    for (const machine of new Set(submissions.map(({ wish }) => wish.machine))) {
      this.resets.set(machine, [...machine.resets, ...resetsBy(jobs, machine)]);
      for (const line of (await machine.marks()).split('\n')) {
        const [key = '', ...said] = line.split(' ');
        marks.set(key, [...(marks.get(key) ?? []), said.join(' ')]);
      }
    }

    const queue = submissions.values();
    const one = async () => {
      for (const submission of queue) {
        const { key } = submission.wish;
        await this.judgeOne(submission, byKey.get(key), marks.get(key) ?? []);
      }
    };
    await Promise.all(Array.from({ length: READERS }, one));
    await this.judgeAudit(jobs);
    return this.violations;
  }

  private async judgeOne(submission: Submission, job: Ended | undefined, marks: string[]): Promise<void> {
    const { wish, answer, jobId } = submission;
    const against = (verdict: Violation['verdict'], what: string) =>
      this.violations.push({ verdict, what: `${wish.kind} ${wish.key}: ${what}`, jobId: job?.id ?? jobId });
    if (!answer) against('lost', 'no answer came, though all was healed');
    else if (!jobId) against('lost', `refused: ${JSON.stringify(answer)}`);
    if (wish.kind === 'look') return;
    if (!job) return void (answer && against('lost', 'there is no such job'));
    if (jobId && jobId !== job.id)
      against('lost', `the job has another id than ${jobId}, which was answered`);
    const begins = marks.filter((mark) => mark === 'begin').length;
    if (begins > 1) against('run_twice', `begun ${begins} times in the guest`);
    const wasReset = (until?: number) => fell(job, this.resets.get(wish.machine)!, until);
    const wrong = wrongEnd(wish, job, marks, wasReset());
    if (wrong) against('lost', wrong);
    if (wish.kind === 'start' || wish.kind === 'exec') {
      const gap = await this.gapOf(wish, job);
      if (gap) against('log_gaps', gap);
    }
    if (wish.kind === 'install' && job.state === 'succeeded' && !wasReset(Infinity)) {
      const { path, content } = fileOf(wish);
      if (!(await wish.machine.file(path))?.equals(content))
        against('lost', 'the file is not there as it was');
    }
  }

  private async gapOf(wish: Wish, job: Ended): Promise<string | undefined> {
    const call: Call = (name, args = {}) => this.client.call(wish.machine.token, name, args);
    const log = await readToEnd(call, job.id);
    const expected = outputOf(wish);
    const isWhole = job.result !== null && (job.state === 'succeeded' || job.state === 'failed');
    for (const stream of ['stdout', 'stderr'] as const) {
      const [is, should] = [log[stream], expected[stream]];
      if (isWhole && !is.equals(should))
        return `${stream}: ${is.length} bytes, not the ${should.length} of the guest`;
      const wrong = is.findIndex((byte, at) => byte !== should[at]);
      if (wrong >= 0)
        return `${stream}: ${is.length} bytes, which from ${wrong} on are not what was printed: ${JSON.stringify(is.toString('latin1', wrong, wrong + 50))}`;
    }
    return undefined;
  }

  private async judgeAudit(jobs: Job[]): Promise<void> {
    const { db } = this.database;
    const written = await db.$queryRaw<{ job_id: string; event: string; count: number }[]>`
      SELECT job_id, event, count(*)::int FROM audit_events
      WHERE event IN ('job.submitted', 'job.finished') GROUP BY 1, 2`;
    const counts = new Map(written.map(({ job_id, event, count }) => [`${job_id} ${event}`, count]));
    for (const { id } of jobs) {
      for (const event of ['job.submitted', 'job.finished']) {
        const count = counts.get(`${id} ${event}`) ?? 0;
        if (count !== 1)
          this.violations.push({
            verdict: 'lost',
            what: `audit: ${event} is there ${count} times`,
            jobId: id,
          });
      }
    }
    const calls = await db.auditEvent.findMany({ where: { event: 'call' }, select: { requestId: true } });
    const known = new Set(calls.map(({ requestId }) => requestId));
    for (const id of this.client.answered)
      if (!known.has(id)) this.violations.push({ verdict: 'lost', what: `audit: no call of request ${id}` });
  }
}

/** Why a job cannot have ended so, given what its command has noted in the guest. */
function wrongEnd(wish: Wish, job: Ended, marks: string[], wasReset: boolean): string | undefined {
  const { state, result, error } = job;
  const ends = `it is ${state} (${JSON.stringify(error ?? result)}), in the guest: ${marks.join(', ') || 'nothing'}`;
  const isCommand = wish.kind === 'start' || wish.kind === 'exec';
  const begun = marks.includes('begin');
  switch (state) {
    case 'queued':
    case 'running':
    case 'awaiting_input':
      return `it has not ended: ${ends}`;
    case 'unknown':
      return wasReset ? undefined : `no reset explains that ${ends}`;
    case 'cancelled':
      return wish.cancelAfterMs === undefined ? `nobody cancelled it: ${ends}` : undefined;
    case 'timed_out':
      return wish.timeoutSeconds === undefined && isCommand ? `it had time enough: ${ends}` : undefined;
    default:
  }
  if (!isCommand) return error && !mayBeRepeated(error.code) ? ends : undefined;
  if (error) return NOT_BEGUN.has(error.code) && !begun ? undefined : ends;
  const isRight = result?.exit_code === wish.exitCode && (state === 'succeeded') === (wish.exitCode === 0);
  return isRight && marks.includes(`end ${wish.exitCode}`) ? undefined : ends;
}

/** Whether one of them was while the job ran, or later until `until`. */
function fell(job: Job, resets: Machine['resets'], until = job.finishedAt?.getTime() ?? Infinity): boolean {
  const since = job.startedAt?.getTime() ?? Infinity;
  return resets.some((reset) => reset.from <= until && reset.until >= since);
}

/** What clients wanted to be cut. */
const resetsBy = (jobs: Job[], { vm }: Machine) =>
  jobs
    .filter(({ kind, vmId, startedAt }) => kind === 'vm.power' && vmId === vm.id && startedAt)
    .map(({ startedAt, finishedAt }) => ({
      from: startedAt!.getTime(),
      until: finishedAt?.getTime() ?? Infinity,
    }));

/** All that is known of a violation, for who looks into it. */
export async function explain(
  { verdict, what, jobId }: Violation,
  { db }: TestDatabase,
  faults: readonly Happened[],
): Promise<string> {
  const lines = [`${verdict.toUpperCase()}: ${what}`];
  const job =
    jobId && (await db.job.findUnique({ where: { id: jobId }, include: { attempts: true, intents: true } }));
  if (!job) return lines.join('\n');
  const { id, kind, state, createdAt, startedAt, finishedAt, attempts, intents } = job;
  lines.push(
    `  job ${id}, ${kind}, ${state}; ${time(createdAt)} submitted, ${time(startedAt)} begun, ${time(finishedAt)} ended`,
  );
  for (const { attempt, worker, startedAt, endedAt, outcome } of attempts)
    lines.push(`  attempt ${attempt} by ${worker}: ${time(startedAt)} to ${time(endedAt)}, ${outcome}`);
  for (const { what, attempt, createdAt, confirmedAt } of intents)
    lines.push(`  intent ${what} of attempt ${attempt}: ${time(createdAt)}, confirmed ${time(confirmedAt)}`);
  const events = await db.auditEvent.findMany({ where: { jobId: id }, orderBy: { at: 'asc' } });
  for (const { at, event, tool, result, code } of events)
    lines.push(`  ${time(at)} ${event} ${tool ?? ''} ${result} ${code ?? ''}`);
  const chunks = await db.$queryRaw<{ data: Uint8Array }[]>`
    SELECT data FROM job_log_chunks WHERE job_id = ${id}::uuid AND stream = 'system' ORDER BY "offset"`;
  lines.push(
    ...Buffer.concat(chunks.map(({ data }) => data))
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => `  log: ${line}`),
  );
  const [from, until] = [createdAt.getTime() - 5_000, (finishedAt ?? new Date()).getTime()];
  for (const fault of faults)
    if (fault.from <= until && fault.until >= from)
      lines.push(
        `  fault ${fault.number} ${fault.kind} ${fault.target}: ${time(new Date(fault.from))}, ${fault.forMs} ms`,
      );
  return lines.join('\n');
}

const time = (at: Date | null) => at?.toISOString().slice(11, 23) ?? 'never';
