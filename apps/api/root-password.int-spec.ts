import { Attempts, Jobs, jobsConfig, type Outcome } from '@longhaul/jobs';
import type { Vm } from '@longhaul/persistence';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { TEST_SECRETS_KEYS, makeHost, makeUser, makeVm } from '../../test/support/database.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { NO_RATES, mcpUrl, testApi } from '../../test/support/mcp.js';
import { callTool, rpc } from '../../test/support/tasks.js';

// Who is told the root password that a job has set, and how often.

const { test, api } = testApi(NO_RATES);
let user: Awaited<ReturnType<typeof makeUser>>;
let vm: Vm;

beforeAll(async () => {
  await makeHost(test.db);
});
beforeEach(async () => {
  user = await makeUser(test.db);
  vm = await makeVm(test.db, user.caller);
});

const url = () => new URL('/mcp/x/all', mcpUrl(api.port));

const call = (name: string, args: object = {}, token = user.token) => callTool(url(), token, name, args);

const reinstall = (more: object = {}, image = 'busybox') => ({
  vm_id: vm.id,
  image,
  confirmation: `REINSTALL ${vm.id} TO TEMPLATE ${image}`,
  ...more,
});

/** The job's attempt, done by hand: it keeps a secret as a worker does, and ends as it is told. */
async function finish(jobId: string, outcome: Outcome, secret?: string): Promise<void> {
  const attempts = new Attempts(
    test.db,
    new Jobs(test.db, test.audit, new NoDelivery(), test.changes),
    jobsConfig.parse({}),
  );
  const ref = await new HandWorker(test).claim(jobId);
  const { userId } = await test.db.job.findUniqueOrThrow({ where: { id: jobId } });
  const secrets = new StoredSecrets(test.db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
  if (secret !== undefined) {
    await attempts.fenced(ref, (tx) => secrets.keepOnceFor(tx, jobId, userId, () => Buffer.from(secret), 60));
  }
  await attempts.finish(ref, outcome);
}

describe('a root password', () => {
  const succeeded: Outcome = { state: 'succeeded', result: { power_state: 'running', image: 'busybox' } };
  const PASSWORD = 'correct horse battery staple';
  const READERS: Record<string, (id: string, token: string) => Promise<unknown>> = {
    get_job: (job_id, token) => call('get_job', { job_id }, token),
    wait_for_job: (job_id, token) => call('wait_for_job', { job_id, timeout_seconds: 0 }, token),
    'tasks/get': (taskId, token) => rpc(url(), token, 'tasks/get', { taskId }),
    'the same call again': (_id, token) => call('reinstall_vm', reinstall({ idempotency_key: 'k' }), token),
    'the resource': (id, token) => rpc(url(), token, 'resources/read', { uri: `longhaul://jobs/${id}` }),
  };

  it.each(Object.keys(READERS))('is told once to who made the job, by %s', async (name) => {
    const { job_id } = await call('reinstall_vm', reinstall({ idempotency_key: 'k' }));
    expect(JSON.stringify(await READERS[name]!(job_id, user.token))).not.toContain('root_password');
    await finish(job_id, succeeded, PASSWORD);

    const member = await makeUser(test.db);
    const { projectId } = vm;
    await test.db.projectMember.create({ data: { projectId, userId: member.caller.userId, role: 'owner' } });
    for (const reader of ['get_job', 'wait_for_job', 'tasks/get', 'the resource'])
      expect(JSON.stringify(await READERS[reader]!(job_id, member.token))).not.toContain(PASSWORD);

    expect(JSON.stringify(await READERS[name]!(job_id, user.token))).toContain(PASSWORD);
    for (const read of Object.values(READERS))
      expect(JSON.stringify(await read(job_id, user.token))).not.toContain(PASSWORD);
  });

  it('is told to one of many readers at once', async () => {
    const { job_id } = await call('reinstall_vm', reinstall());
    await finish(job_id, succeeded, PASSWORD);
    const answers = await Promise.all(Array.from({ length: 8 }, () => call('get_job', { job_id })));
    expect(answers.filter(({ root_password }) => root_password === PASSWORD)).toHaveLength(1);
  });

  it('is not told of a job that did not succeed, and lies nowhere in the clear', async () => {
    const { job_id } = await call('reinstall_vm', reinstall());
    await finish(job_id, { state: 'unknown' }, PASSWORD);
    expect(await call('get_job', { job_id })).not.toHaveProperty('root_password');
    const rows = [
      await test.db.job.findMany(),
      await test.db.oneTimeSecret.findMany(),
      await test.db.jobLogChunk.findMany(),
    ];
    expect(JSON.stringify(rows)).not.toContain(PASSWORD);
    const events = await test.db.$queryRaw<
      { text: string }[]
    >`SELECT audit_events::text AS text FROM audit_events`;
    for (const { text } of events) expect(text).not.toContain(PASSWORD);
  });

  it('stays the same for a job that is tried again', async () => {
    const { job_id } = await call('reinstall_vm', reinstall());
    const secrets = new StoredSecrets(test.db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
    const { userId } = user.caller;
    const keep = (text: string) =>
      test.db.$transaction((tx) => secrets.keepOnceFor(tx, job_id, userId, () => Buffer.from(text), 60));
    expect((await keep('first')).toString()).toBe('first');
    expect((await keep('second')).toString()).toBe('first');
    await finish(job_id, succeeded, 'third');
    expect(await call('get_job', { job_id })).toMatchObject({ root_password: 'first' });
  });
});
