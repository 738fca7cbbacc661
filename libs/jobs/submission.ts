import { createHash } from 'node:crypto';
import { unfinishedJobs } from '@longhaul/access';
import type { Audit } from '@longhaul/audit';
import { AppError } from '@longhaul/errors';
import { JOB_COLUMNS, Prisma, newId, type Job, type RawSql, type Transaction } from '@longhaul/persistence';
import type { JobKind, Lane, VmSlot } from './kind.js';
import { REDELIVER_SECONDS, queueName } from './states.js';
import { turnIn } from './window.js';

export interface Submission<Payload> {
  kind: JobKind<Payload, unknown>;
  payload: Payload;
  by: { userId: string; tokenId?: string; clientId?: string };
  projectId: string;
  vm?: { id: string; host: string; commandSlots: number };
  /** The job makes its VM: of two submissions, the ids of both are no difference. */
  isNewVm?: boolean;
  /** Done in the transaction that stores the job, when it does; what it throws keeps the job from being made. */
  alongside?: (tx: RawSql) => Promise<void>;
  label?: string;
  /** Instead of the kind's own. */
  lane?: Lane;
  queueSeconds?: number;
  /** The same key of the same user answers the same job; with other arguments it is refused. */
  idempotencyKey?: string;
  requestId?: string;
  /** The tool that makes it, which also words the answer about it. */
  tool?: string;
  /** W3C trace context of the request. */
  traceparent?: string;
}

/**
 * Inserts the job with its audit event, or nothing when it may not be: the key was used, no slot is free, or the project is
 * full. One statement decides, so that of racing submissions just as many win as there are slots.
 */
export async function insertJob<P>(
  tx: RawSql,
  audit: Audit,
  submission: Submission<P>,
): Promise<Job | undefined> {
  const { kind, payload, by, projectId, vm } = submission;
  const slots = kind.slot && vm ? slotsOf(kind.slot, vm) : 1;
  if (kind.slot && vm) await holdStill(tx, vm.id, kind.alone);
  const lane = submission.lane ?? kind.lane;
  const [job] = await tx.$queryRaw<Job[]>`
    INSERT INTO jobs (id, kind, version, project_id, user_id, token_id, vm_id, host, lane, scope, label, payload, slot,
      slot_index, exec, alone, run_seconds, deadline_at, place, delivery, redeliver_at, priority, idempotency_key,
      arguments_hash, request_id, tool, traceparent)
    SELECT ${newId()}::uuid, ${kind.name}, ${kind.version}, ${projectId}::uuid, ${by.userId}::uuid,
      ${by.tokenId ?? null}::uuid, ${vm?.id ?? null}::uuid, ${vm?.host ?? null}, ${lane},
      ${kind.scope}, ${submission.label ?? null}, ${JSON.stringify(payload)}::jsonb, ${kind.slot ?? null}, free.slot_index,
      ${kind.exec ?? false}, ${kind.alone ?? false}, ${kind.runSeconds(payload)}::int, now() + ${submission.queueSeconds ?? kind.queueSeconds} * interval '1 second',
      (CASE WHEN must_wait THEN 'held' ELSE 'window' END)::queue_place, (NOT must_wait)::int,
      CASE WHEN NOT must_wait THEN now() + ${REDELIVER_SECONDS} * interval '1 second' END, ahead + 1,
      ${submission.idempotencyKey ?? null}, ${hashArguments(submission)}, ${submission.requestId ?? null},
      ${submission.tool ?? null}, ${submission.traceparent ?? null}
    FROM projects, ${turnIn(queueName(lane, vm?.host))},
      (SELECT CASE WHEN ${kind.slot ?? null}::text IS NOT NULL THEN min(i) END AS slot_index
        FROM generate_series(0, ${slots}::int - 1) AS i
        WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE vm_id = ${vm?.id ?? null}::uuid AND slot = ${kind.slot ?? null}
          AND slot_index = i AND (state IN ('queued', 'running', 'awaiting_input') OR quarantined))) AS free
    WHERE projects.id = ${projectId}::uuid
      AND (${kind.slot ?? null}::text IS NULL OR (free.slot_index IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM jobs WHERE vm_id = ${vm?.id ?? null}::uuid AND slot IS NOT NULL
          AND (alone OR ${kind.alone ?? false}) AND (state IN ('queued', 'running', 'awaiting_input') OR quarantined))))
      AND projects.live_job_limit > (SELECT count(*) FROM (SELECT FROM jobs
        WHERE project_id = ${projectId}::uuid AND state IN ('queued', 'running', 'awaiting_input')
        LIMIT projects.live_job_limit) AS live)
    ON CONFLICT DO NOTHING RETURNING ${JOB_COLUMNS}`;
  if (!job) return undefined;
  await submission.alongside?.(tx);
  const { id: jobId, vmId, requestId } = job;
  const args = { kind: kind.name, label: submission.label, ...(payload as object) };
  await audit.write(tx, {
    event: 'job.submitted',
    ...by,
    projectId,
    vmId,
    jobId,
    requestId,
    arguments: args,
    result: 'ok',
  });
  return job;
}

/** Why nothing was inserted: the same key was used before, a slot is held, or the project is full. */
export async function explainRefusal<P>(
  db: Transaction,
  submission: Submission<P>,
): Promise<Job | undefined> {
  const { kind, by, vm, idempotencyKey } = submission;
  if (idempotencyKey !== undefined) {
    const earlier = await db.job.findFirst({ where: { userId: by.userId, idempotencyKey } });
    if (earlier?.argumentsHash && hashArguments(submission).equals(earlier.argumentsHash)) return earlier;
    if (earlier) {
      throw new AppError(
        'idempotency_key_reused',
        'This idempotency_key was used with other arguments; use a new one.',
        {
          job_id: earlier.id,
        },
      );
    }
  }
  if (kind.slot && vm) await requireSlot(db, vm, kind.slot, kind.alone);
  const project = await db.project.findUniqueOrThrow({ where: { id: submission.projectId } });
  const live = await unfinishedJobs(project.id, db);
  if (live >= project.liveJobLimit) {
    throw new AppError(
      'rate_limited',
      `The project has ${live} unfinished jobs, which is its limit; wait for some to end.`,
      { retry_after: retryAfter(live) },
    );
  }
  return undefined;
}

/** When to try again, in whole seconds from 5 to 60: the more jobs must end first, the later. */
export const retryAfter = (unfinished: number) => Math.min(5 + Math.floor(unfinished / 100), 60);

/** How many jobs of a VM have such a slot at once. */
export const slotsOf = (slot: VmSlot, { commandSlots }: { commandSlots: number }) =>
  slot === 'command' ? commandSlots : 1;

/**
 * Whether a job could have a slot now, `alone` or not. Whether what is free now is free for a job is known only when that is
 * made. Errors: `vm_command_in_progress`, `vm_busy`.
 */
export async function requireSlot(
  db: RawSql,
  vm: { id: string; commandSlots: number },
  slot: VmSlot,
  alone = false,
): Promise<void> {
  const holders = await db.$queryRaw<Holder[]>`
    SELECT id, slot, alone, quarantined FROM jobs WHERE vm_id = ${vm.id}::uuid AND slot IS NOT NULL
      AND (state IN ('queued', 'running', 'awaiting_input') OR quarantined) ORDER BY created_at`;
  const same = holders.filter((holder) => holder.slot === slot);
  if (same.length >= slotsOf(slot, vm)) throw slotHeld(same[0]!);
  const other = holders.find((holder) => alone || holder.alone);
  if (other) throw slotHeld(other);
}

interface Holder {
  id: string;
  slot: string;
  alone: boolean;
  quarantined: boolean;
}

/** Until the end of the transaction no job of the VM that must be alone is stored beside one that this does not know of. */
async function holdStill(tx: RawSql, vmId: string, alone = false): Promise<void> {
  const key = Prisma.sql`hashtextextended(${vmId}, 0)`;
  // Those that do not mind each other do not wait for each other.
  if (alone) await tx.$executeRaw`SELECT pg_advisory_xact_lock(${key})`;
  else await tx.$executeRaw`SELECT pg_advisory_xact_lock_shared(${key})`;
}

function slotHeld({ slot, ...holder }: Holder): AppError {
  const details = { job_id: holder.id };
  const what = holder.quarantined ? 'is being cleaned up after' : 'is held by';
  return slot === 'command'
    ? new AppError(
        'vm_command_in_progress',
        `The VM's command slot ${what} job ${holder.id}. Wait for it or cancel it.`,
        details,
      )
    : new AppError('vm_busy', `The VM ${what} job ${holder.id}. Wait for it or cancel it.`, details);
}

function hashArguments<P>({ kind, vm, isNewVm, label, payload, projectId }: Submission<P>): Buffer {
  const text = JSON.stringify([kind.name, projectId, isNewVm ? undefined : vm?.id, label, payload]);
  return createHash('sha256').update(text).digest();
}
