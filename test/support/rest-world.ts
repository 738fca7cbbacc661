import { createToken, SCOPES, type Caller } from '@longhaul/access';
import { createMachineClient } from '@longhaul/oauth';
import { newId, type Job, type Vm } from '@longhaul/persistence';
import type { Route } from '../../apps/api/rest/route.js';
import { makeUser, makeVm, type TestDatabase } from './database.js';

/** Everything that one tenant can have. */
export interface Tenant {
  token: string;
  caller: Caller;
  projectId: string;
  vm: Vm;
  job: Job;
  /** Of another user, who is a viewer in the project. */
  memberId: string;
  memberEmail: string;
  /** Of a user in no project of the tenant. */
  strangerId: string;
  strangerEmail: string;
  /** A second token, a grant, and the client of a machine. */
  tokenId: string;
  grantId: string;
  machineId: string;
}

export async function makeTenant({ db }: TestDatabase): Promise<Tenant> {
  const { token, caller } = await makeUser(db);
  const [projectId] = caller.projectIds as [string];
  const vm = await makeVm(db, caller);
  const { caller: member } = await makeUser(db);
  const { caller: stranger } = await makeUser(db);
  await db.projectMember.create({ data: { projectId, userId: member.userId, role: 'viewer' } });
  const second = await createToken(db, caller.userId, SCOPES, { name: 'second' });
  const grant = await db.oauthGrant.create({
    data: {
      id: newId(),
      userId: caller.userId,
      clientId: 'https://client.example.test',
      scopes: ['vms:read'],
    },
  });
  const machine = await createMachineClient(db, 'nightly', { userId: caller.userId, scopes: ['vms:read'] });
  return {
    token,
    caller,
    projectId,
    vm,
    job: await makeJob({ db }, vm, caller),
    memberId: member.userId,
    memberEmail: member.email,
    strangerId: stranger.userId,
    strangerEmail: stranger.email,
    tokenId: second.id,
    grantId: grant.id,
    machineId: machine.clientId,
  };
}

/** A job that has ended before anything was tried. */
export function makeJob(
  { db }: Pick<TestDatabase, 'db'>,
  vm: Vm,
  caller: Caller,
  values: Partial<Job> = {},
): Promise<Job> {
  const data = {
    id: newId(),
    kind: 'vm.command',
    state: 'failed' as const,
    projectId: vm.projectId,
    userId: caller.userId,
    vmId: vm.id,
    host: vm.host,
    lane: 'bulk',
    scope: 'vms:exec',
    payload: { command: 'true', timeout_seconds: 60 },
    runSeconds: 60,
    deadlineAt: new Date(),
    finishedAt: new Date(),
    ...values,
  };
  return db.job.create({
    data: Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null)) as never,
  });
}

export interface Sample {
  params?: Record<string, string>;
  query?: Record<string, string>;
  body?: Record<string, unknown>;
}

/** A request to each route that succeeds, about this tenant; what is not listed fails routes.int-spec.ts. */
export const SAMPLES: Record<string, (tenant: Tenant) => Sample> = {
  'GET /admin/openapi.json': () => ({}),
  'GET /admin/v1/audit': ({ caller }) => ({ query: { user_id: caller.userId } }),
  'GET /admin/v1/audit/export': ({ caller }) => ({ query: { user_id: caller.userId, format: 'csv' } }),
  'GET /admin/v1/users': () => ({ query: { limit: '2', standing: 'good' } }),
  'GET /admin/v1/users/{id}': ({ caller }) => ({ params: { id: caller.userId } }),
  'POST /admin/v1/users': () => ({ body: { email: `${newId()}@example.test` } }),
  'PATCH /admin/v1/users/{id}': ({ strangerId }) => ({
    params: { id: strangerId },
    body: { standing: 'flagged' },
  }),
  'GET /admin/v1/projects': ({ caller }) => ({ query: { user_id: caller.userId } }),
  'GET /admin/v1/projects/{id}': ({ projectId }) => ({ params: { id: projectId } }),
  'POST /admin/v1/projects': ({ caller }) => ({ body: { name: `new ${newId()}`, owner_id: caller.userId } }),
  'PATCH /admin/v1/projects/{id}': ({ projectId }) => ({
    params: { id: projectId },
    body: { customer: 'C-1', confirmation: 'person' },
  }),
  'PUT /admin/v1/projects/{id}/members/{user_id}': ({ projectId, strangerId }) => ({
    params: { id: projectId, user_id: strangerId },
    body: { role: 'member' },
  }),
  'DELETE /admin/v1/projects/{id}/members/{user_id}': ({ projectId, memberId }) => ({
    params: { id: projectId, user_id: memberId },
  }),
  'GET /admin/v1/tokens': ({ caller }) => ({ query: { user_id: caller.userId, revoked: 'false' } }),
  'DELETE /admin/v1/tokens/{id}': ({ tokenId }) => ({ params: { id: tokenId } }),
  'GET /admin/v1/grants': ({ caller }) => ({ query: { user_id: caller.userId } }),
  'DELETE /admin/v1/grants/{id}': ({ grantId }) => ({ params: { id: grantId } }),
  'GET /admin/v1/clients': ({ caller }) => ({ query: { user_id: caller.userId, revoked: 'false' } }),
  'POST /admin/v1/clients': ({ caller, projectId, vm }) => ({
    body: {
      name: 'backup',
      user_id: caller.userId,
      scopes: ['vms:read'],
      project_ids: [projectId],
      vm_ids: [vm.id],
    },
  }),
  'DELETE /admin/v1/clients/{id}': ({ machineId }) => ({ params: { id: machineId } }),
  'GET /admin/v1/vms': ({ projectId }) => ({ query: { project_id: projectId } }),
  'GET /admin/v1/vms/{id}': ({ vm }) => ({ params: { id: vm.id } }),
  'PATCH /admin/v1/vms/{id}': ({ vm }) => ({ params: { id: vm.id }, body: { exec_suspended: true } }),
  'GET /admin/v1/jobs': ({ vm }) => ({ query: { vm_id: vm.id, state: 'failed' } }),
  'GET /admin/v1/jobs/{id}': ({ job }) => ({ params: { id: job.id } }),
  'GET /admin/v1/jobs/{id}/log': ({ job }) => ({ params: { id: job.id }, query: { stream: 'stdout' } }),
  'POST /admin/v1/jobs/{id}/cancel': ({ job }) => ({ params: { id: job.id } }),
  'POST /admin/v1/jobs/{id}/retry': ({ job }) => ({ params: { id: job.id } }),
  'GET /admin/v1/workers': () => ({}),
  'GET /admin/v1/queues': () => ({}),
  'GET /admin/v1/switches': () => ({}),
  'PUT /admin/v1/switches/{name}': () => ({ params: { name: 'exec' }, body: { engaged: false } }),
  'GET /account/v1/me': () => ({}),
  'GET /account/v1/projects': () => ({}),
  'GET /account/v1/projects/{id}/members': ({ projectId }) => ({ params: { id: projectId } }),
  'POST /account/v1/projects/{id}/members': ({ projectId, strangerEmail }) => ({
    params: { id: projectId },
    body: { email: strangerEmail, role: 'member' },
  }),
  'PATCH /account/v1/projects/{id}/members/{user_id}': ({ projectId, memberId }) => ({
    params: { id: projectId, user_id: memberId },
    body: { role: 'admin' },
  }),
  'DELETE /account/v1/projects/{id}/members/{user_id}': ({ projectId, memberId }) => ({
    params: { id: projectId, user_id: memberId },
  }),
  'GET /account/v1/tokens': () => ({}),
  'POST /account/v1/tokens': ({ projectId, vm }) => ({
    body: { name: 'ci', scopes: ['vms:read'], project_ids: [projectId], vm_ids: [vm.id] },
  }),
  'DELETE /account/v1/tokens/{id}': ({ tokenId }) => ({ params: { id: tokenId } }),
  'GET /account/v1/grants': () => ({}),
  'GET /account/v1/audit': ({ projectId, vm }) => ({ query: { project_id: projectId, vm_id: vm.id } }),
  'DELETE /account/v1/grants/{id}': ({ grantId }) => ({ params: { id: grantId } }),
};

export const nameOf = ({ method, path }: Pick<Route, 'method' | 'path'>) => `${method} ${path}`;

/** Path and query of a request to the route. */
export function addressOf({ path }: Pick<Route, 'path'>, { params = {}, query = {} }: Sample): string {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_match, name: string) =>
    encodeURIComponent(params[name]!.toWellFormed()),
  );
  const search = new URLSearchParams(query).toString();
  return search ? `${filled}?${search}` : filled;
}
