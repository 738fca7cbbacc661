import { createToken, SCOPES, userOfAddress } from '@longhaul/access';
import { isFinal, type Submission } from '@longhaul/jobs';
import { newId, type Job, type Transaction, type Vm } from '@longhaul/persistence';
import { vmCreate } from '@longhaul/toolsets/vms/vm-create.job';
import { vmPower } from '@longhaul/toolsets/vms/vm-power.job';
import type { Context } from './context.js';
import { UsageError } from './usage.js';
import { VM_DEFAULTS } from './vms.js';

export const FIRST_USER = 'owner@localhost';
const FIRST_PROJECT = 'default';
const FIRST_VM = 'vm-1';
export interface Owner {
  userId: string;
  projectId: string;
}

/** A user with a project of their own; what is there already stays as it is. */
export async function ensureUser(tx: Transaction, email: string, project: string): Promise<Owner> {
  const user = await tx.user.upsert({ where: { email }, create: { id: newId(), email }, update: {} });
  const { id: projectId } = await tx.project.upsert({
    where: { name: project },
    create: { id: newId(), name: project },
    update: {},
  });
  const membership = { projectId, userId: user.id };
  await tx.projectMember.upsert({
    where: { projectId_userId: membership },
    create: { ...membership, role: 'owner' },
    update: {},
  });
  return { userId: user.id, projectId };
}

export const ensureFirstUser = ({ db }: Context) =>
  db.$transaction((tx) => ensureUser(tx, FIRST_USER, FIRST_PROJECT));

/** The user of that address, by default the first one, who is made if need be, with a project of theirs. */
export async function ownerOf(context: Context, email = FIRST_USER): Promise<Owner> {
  if (email === FIRST_USER) return ensureFirstUser(context);
  const known = await userOfAddress(email, context.db);
  const found =
    known && (await context.db.user.findUnique({ where: { id: known.id }, include: { projects: true } }));
  const projectId = found?.projects[0]?.projectId;
  if (!found || !projectId)
    throw new UsageError(`There is no user ${email} with a project. Make one: longhaul user create ${email}`);
  return { userId: found.id, projectId };
}

/** The token of last time while it is valid, else a new one that may do everything. */
export async function ensureToken(
  { db, access }: Context,
  owner: Owner,
  last: string | undefined,
): Promise<string> {
  if (last && (await access.authenticate(last))?.userId === owner.userId) return last;
  return (await db.$transaction((tx) => createToken(tx, owner.userId, SCOPES))).token;
}

/** The row of the first VM; running commands is switched on for it, as somebody who tries Longhaul wants just that. */
export async function ensureFirstVm({ db }: Context, { projectId }: Owner): Promise<Vm> {
  return db.vm.upsert({
    where: { projectId_hostname: { projectId, hostname: FIRST_VM } },
    create: { id: newId(), projectId, hostname: FIRST_VM, execEnabled: true, ...VM_DEFAULTS },
    update: {},
  });
}

/** Makes the VM if it never ran, else starts it, by a job like anybody's; resolves when its guest answers. */
export async function bringUp(context: Context, vm: Vm, userId: string, signal: AbortSignal): Promise<void> {
  const job = vm.epoch
    ? await runJob(context, vm, userId, vmPower, { action: 'start' }, signal)
    : await runJob(context, vm, userId, vmCreate, {}, signal);
  if (job.state !== 'succeeded')
    throw new Error(`Job ${job.id} (${job.kind}) ended ${job.state}: ${errorOf(job)}`);
}

/** Submits a job on a VM and waits for its end. */
export async function runJob<P>(
  { jobs }: Context,
  vm: Vm,
  userId: string,
  kind: Submission<P>['kind'],
  payload: NoInfer<P>,
  signal?: AbortSignal,
): Promise<Job> {
  const { id } = await jobs.submit({ kind, payload, by: { userId }, projectId: vm.projectId, vm });
  const waitMs = (kind.queueSeconds + kind.runSeconds(payload)) * 1000;
  return jobs.wait(id, (job) => isFinal(job.state), waitMs, signal);
}

export function errorOf(job: Job): string {
  return (job.error as { message?: string } | null)?.message ?? 'no reason given';
}
