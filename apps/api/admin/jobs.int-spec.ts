import { newId, type Job } from '@longhaul/persistence';
import { HandWorker } from '../../../test/support/hand-worker.js';
import { testApi } from '../../../test/support/mcp.js';
import { makeStaff, rest } from '../../../test/support/rest.js';
import { makeJob, makeTenant, type Tenant } from '../../../test/support/rest-world.js';

const { test, api } = testApi();
let staff: string;
let tenant: Tenant;

beforeEach(async () => {
  ({ token: staff } = await makeStaff(test));
  tenant = await makeTenant(test);
});

const admin = (method: string, path: string) => rest(api.port, staff, method, `/admin/v1${path}`);

describe('jobs', () => {
  const make = (values: Partial<Job>) => makeJob(test, tenant.vm, tenant.caller, values);
  const retry = (id: string, token = staff) => rest(api.port, token, 'POST', `/admin/v1/jobs/${id}/retry`);

  it('are retried when nothing was tried, and only once by however many', async () => {
    const { token: second } = await makeStaff(test);
    const answers = await Promise.all([staff, second, staff].map((token) => retry(tenant.job.id, token)));
    const ids = new Set(answers.map(({ json }) => json.id));
    expect([...ids]).toHaveLength(1);
    const [id] = ids;
    expect(id).not.toBe(tenant.job.id);
    const job = await test.db.job.findUniqueOrThrow({ where: { id } });
    expect(job).toMatchObject({
      state: 'queued',
      kind: 'vm.command',
      vmId: tenant.vm.id,
      payload: tenant.job.payload,
    });
    const events = await test.db.auditEvent.findMany({ where: { jobId: id, event: 'job.submitted' } });
    expect(events).toMatchObject([{ userId: job.userId }]);
    expect(job.userId).not.toBe(tenant.caller.userId);
  });

  it('are not retried when that could do something twice, or does not make sense', async () => {
    const touched = await make({});
    await test.db.jobIntent.create({ data: { jobId: touched.id, what: 'command', attempt: 1 } });
    const unfit: Partial<Job>[] = [
      { state: 'succeeded' },
      { state: 'unknown' },
      { state: 'running', finishedAt: null },
      { state: 'awaiting_input', finishedAt: null },
      { kind: 'other.kind' },
      { version: 2 },
    ];
    const jobs = [touched, ...(await Promise.all(unfit.map(make)))];
    const before = await test.db.job.count();
    for (const { id } of jobs)
      expect((await retry(id)).json).toMatchObject({ status: 409, code: 'job_not_retryable' });
    expect(await test.db.job.count()).toBe(before);
  });

  it('are retried through the gates of their VM', async () => {
    await test.db.vm.update({ where: { id: tenant.vm.id }, data: { execEnabled: false } });
    expect((await retry(tenant.job.id)).json).toMatchObject({ status: 403, code: 'mcp_exec_disabled' });
    await test.db.vm.update({ where: { id: tenant.vm.id }, data: { execEnabled: true } });
    await make({ state: 'queued', slot: 'command', slotIndex: 0, finishedAt: null });
    expect((await retry(tenant.job.id)).json).toMatchObject({ status: 409, code: 'vm_command_in_progress' });
  });

  it('are cancelled, shown and read', async () => {
    const { id } = await make({
      state: 'queued',
      finishedAt: null,
      deadlineAt: new Date(Date.now() + 60_000),
    });
    const worker = new HandWorker(test);
    const ref = await worker.claim(id);
    await worker.write(ref, 'stdout', Buffer.from('grüße\n'));
    const read = (query: string) => admin('GET', `/jobs/${id}/log?${query}`);
    expect((await read('stream=stdout&max_bytes=3')).json).toMatchObject({
      text: 'gr',
      next_offset: 2,
      size: 8,
      eof: false,
    });
    expect((await read('stream=stdout&offset=2')).json).toMatchObject({
      text: 'üße\n',
      next_offset: 8,
      eof: false,
    });
    expect((await read('stream=stdout&offset=9')).json).toMatchObject({ status: 400, details: { size: 8 } });
    expect((await read('stream=stdin')).status).toBe(400);
    expect((await read('stream=stdout&max_bytes=65537')).status).toBe(400);
    expect((await admin('POST', `/jobs/${id}/cancel`)).json).toMatchObject({
      state: 'running',
      cancel_requested_at: expect.any(String),
    });
    expect((await admin('GET', '/workers')).json.workers).toMatchObject([{ name: 'by-hand', running: 1 }]);
    await worker.finish(ref, { state: 'cancelled' });
    expect((await read('stream=stdout&offset=8')).json).toMatchObject({ text: '', eof: true });
    expect((await admin('GET', `/jobs/${id}`)).json).toMatchObject({
      state: 'cancelled',
      attempts: [{ attempt: 1, worker: 'by-hand', outcome: 'cancelled' }],
      intents: [],
    });
    const events = await test.db.auditEvent.findMany({ where: { jobId: id, event: 'job.cancel_requested' } });
    expect(events).toHaveLength(1);
    expect(events[0]!.userId).not.toBe(tenant.caller.userId);
  });

  it('that wait are counted by lane and host', async () => {
    const host = `host-${newId()}`;
    await test.db.host.create({ data: { name: host } });
    const createdAt = new Date(Date.now() - 90_000);
    for (const lane of ['bulk', 'bulk', 'interactive'])
      await make({ state: 'queued', host, lane, createdAt, finishedAt: null });
    const { queues } = (await admin('GET', '/queues')).json;
    expect(queues.filter((queue: { host: string }) => queue.host === host)).toMatchObject([
      { lane: 'bulk', queued: 2, oldest_seconds: expect.any(Number) },
      { lane: 'interactive', queued: 1 },
    ]);
    expect(
      queues.find((queue: { host: string }) => queue.host === host).oldest_seconds,
    ).toBeGreaterThanOrEqual(90);
    expect((await admin('GET', '/workers')).json.hosts).toContainEqual(
      expect.objectContaining({ name: host, reachable: true, vms: 0 }),
    );
  });
});
