import { requireExecSwitch, type Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { Actor, JobKind, Jobs } from '@longhaul/jobs';
import { vmCommand } from '@longhaul/toolsets/commands/vm-command.job';
import { vmCreate } from '@longhaul/toolsets/vms/vm-create.job';
import { vmPower } from '@longhaul/toolsets/vms/vm-power.job';
import { JOB_COLUMNS, type Job, type Transaction, type Vm } from '@longhaul/persistence';
import { notFound } from '../rest/fields.js';

/** Kinds whose handlers commit an intent before every effect that must not happen twice, or have none such. */
const KINDS: readonly JobKind[] = [vmCommand, vmPower, vmCreate] as readonly JobKind[];

/** Ends after which nothing of a job goes on. */
const ENDS: readonly string[] = ['failed', 'timed_out', 'cancelled'];

interface By {
  db: Transaction;
  jobs: Jobs;
  actor: Actor;
  caller: Caller;
}

/**
 * Submits the same work as a new job, or answers the job that was made so before. Errors: `not_found`, `job_not_retryable`,
 * those of the VM's gates, and those of Jobs.submit.
 */
export async function retry(jobId: string, { db, jobs, actor, caller }: By): Promise<Job> {
  // Whoever else retries this job waits here, and then finds the job made now.
  const [job] = await db.$queryRaw<
    Job[]
  >`SELECT ${JOB_COLUMNS} FROM jobs WHERE id = ${jobId}::uuid FOR UPDATE`;
  if (!job) throw notFound();
  const idempotencyKey = `retry of ${job.id}`;
  const { projectId, createdAt } = job;
  const earlier = await db.job.findFirst({
    where: { projectId, createdAt: { gte: createdAt }, idempotencyKey },
  });
  if (earlier) return earlier;
  const kind = await retryableKind(job, db);
  const vm = job.vmId === null ? undefined : await db.vm.findUnique({ where: { id: job.vmId } });
  if (vm === null) throw notRetryable('Its VM is gone.');
  if (vm && kind.exec) requireExec(vm, caller);
  return jobs.submit({
    kind,
    payload: kind.payload.parse(job.payload),
    by: actor,
    projectId,
    vm,
    tool: job.tool ?? undefined,
    label: job.label ?? undefined,
    requestId: actor.requestId,
    idempotencyKey,
  });
}

async function retryableKind(job: Job, db: Transaction): Promise<JobKind> {
  const kind = KINDS.find(({ name, version }) => name === job.kind && version === job.version);
  if (!kind) throw notRetryable('Jobs of its kind cannot be submitted again.');
  if (!ENDS.includes(job.state))
    throw notRetryable(`It is ${job.state}; only what failed, timed out or was cancelled is retried.`);
  if (await db.jobIntent.count({ where: { jobId: job.id } }))
    throw notRetryable('It may have done something already, which a second job would do again.');
  return kind;
}

function requireExec({ execEnabled, execSuspended }: Vm, caller: Caller): void {
  requireExecSwitch(caller);
  if (execEnabled && !execSuspended) return;
  throw new AppError('mcp_exec_disabled', 'Commands are switched off on this VM, by its owner or by staff.');
}

const notRetryable = (message: string) => new AppError('job_not_retryable', message);
