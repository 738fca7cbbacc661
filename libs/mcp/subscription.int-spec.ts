import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Access, Rates, ratesConfig, type Caller } from '@longhaul/access';
import { JobLog, LogGrowth } from '@longhaul/job-log';
import { Jobs } from '@longhaul/jobs';
import { StateChanges, type Vm } from '@longhaul/persistence';
import { product } from '../../apps/api/api.module.js';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import {
  TEST_SECRETS_KEYS,
  makeUser,
  makeVm,
  testDatabase,
  type TestDatabase,
} from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { testArtifacts } from '../../test/support/artifacts.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { listen, type Listener } from '../../test/support/listen.js';
import { vmCommand } from '../toolsets/commands/vm-command.job.js';
import { EventStream } from './event-stream.js';
import { CallPipeline } from './pipeline.js';
import { RequestStates } from './request-states.js';
import { McpServers } from './server.js';
import { Subscription } from './subscription.js';
import { Topics, type Filter } from './topics.js';

let test: TestDatabase;
let jobs: Jobs;
let growth: LogGrowth;
let worker: HandWorker;
let user: Awaited<ReturnType<typeof makeUser>>;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  growth = new LogGrowth(test.db);
  worker = new HandWorker(test);
});
afterAll(() => test.drop());
beforeEach(async () => {
  user = await makeUser(test.db);
  vm = await makeVm(test.db, user.caller);
});

async function submit(): Promise<string> {
  const { caller } = user;
  const { id } = await jobs.submit({
    kind: vmCommand,
    payload: { command: 'make', timeout_seconds: 60 },
    by: caller,
    projectId: vm.projectId,
    vm: { id: vm.id, host: vm.host, commandSlots: 1 },
    tool: 'start_vm_command',
  });
  return id;
}

interface Served {
  listener: Listener;
  response: ServerResponse;
  /** Resolves when the subscription is over. */
  over: Promise<void>;
}

/** A subscription of the caller's on a server of its own, with short times. */
async function serve(
  filter: Filter,
  { changes = test.changes, access = new Access(test.db), read = true, beatMs = 50, stalledMs = 60_000 } = {},
): Promise<Served> {
  const { db, audit } = test;
  const stored = new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
  const states = new RequestStates(db, stored);
  const pipeline = new CallPipeline(
    audit,
    access,
    db,
    jobs,
    new JobLog(db),
    testArtifacts(test, '/nowhere').artifacts,
    states,
    new Rates(db, ratesConfig.parse({})),
    stored,
    {},
  );
  const servers = new McpServers(product, { JOB_RETENTION_DAYS: 30 } as never, pipeline, states);
  const topics = new Topics(product, servers, growth, changes, pipeline);
  const { caller } = user;
  const honoured = await topics.honour(filter, { caller, selection: () => true, requestId: 'r-1' });
  let started: (served: Pick<Served, 'response' | 'over'>) => void;
  const serving = new Promise<Pick<Served, 'response' | 'over'>>((resolve) => (started = resolve));
  const server = createServer((_request, response) => {
    const subscription = new Subscription(1, new EventStream(response, stalledMs), access, changes, beatMs);
    const over = subscription.run(caller, honoured.honoured, honoured.topics);
    started({ response, over: over.finally(() => server.close()) });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const listener = await listen(new URL(`http://127.0.0.1:${port}`), user.token, filter, { read });
  return { listener, ...(await serving) };
}

/** Resolves after `count` signs of life from now on; with each the token is looked at. */
async function beats({ response }: Listener, count: number): Promise<void> {
  let text = '';
  response.on('data', (chunk: string) => (text += chunk));
  await eventually(() => text.split(': keep-alive\n\n').length > count);
}

/** Every connection of the pool is used first, as each has a timer of its own while it is idle. */
async function timersWithFullPool(): Promise<number> {
  await Promise.all(Array.from({ length: 10 }, () => test.db.$queryRaw`SELECT pg_sleep(0.05)::text`));
  return timers();
}

const timers = () => process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;

it('leaves nothing behind, whoever ends it', async () => {
  const before = await timersWithFullPool();
  const taskId = await submit();
  const filter = {
    toolsListChanged: true,
    taskIds: [taskId],
    resourceSubscriptions: [`longhaul://vms/${vm.id}`, `longhaul://jobs/${taskId}/logs/stdout`],
  };
  const first = await serve(filter);
  const second = await serve(filter);
  await eventually(() => first.listener.tasks().length + second.listener.tasks().length === 2);
  expect(test.changes['listeners'].size).toBe(3);
  first.listener.close();
  await first.over;
  expect(growth['timer']).toBeDefined();
  second.listener.close();
  await second.over;
  expect(test.changes['listeners'].size).toBe(0);
  expect(growth['followed'].size).toBe(0);
  await eventually(() => timers() <= before);
});

it('is told of a task until its end and of nothing that came after', async () => {
  const taskId = await submit();
  const { listener, over } = await serve({ taskIds: [taskId] });
  await worker.finish(await worker.claim(taskId), {
    state: 'succeeded',
    result: { exit_code: 0, duration_ms: 1 },
  });
  await listener.frame(({ params }) => params?.status === 'completed');
  expect(test.changes['listeners'].size).toBe(1);
  listener.close();
  await over;
});

it('looks again after a while, as a notification may have been lost', async () => {
  const taskId = await submit();
  const deaf = new StateChanges(test.db);
  const { listener, over } = await serve({ taskIds: [taskId] }, { changes: deaf });
  const ref = await worker.claim(taskId);
  await worker.progress(ref, { progress: 1, message: 'one' });
  await listener.frame(({ params }) => params?.statusMessage === 'one');
  await worker.progress(ref, { progress: 2, message: 'two' });
  await listener.frame(({ params }) => params?.statusMessage === 'two');
  const tasks = listener
    .tasks()
    .map(({ lastUpdatedAt, statusMessage }) => `${String(lastUpdatedAt)} ${String(statusMessage)}`);
  expect(new Set(tasks).size).toBe(tasks.length);
  listener.close();
  await over;
});

it('tells what changed after the caller was read and before it was told', async () => {
  const { tokenId } = user.caller;
  let ignore = () => {};
  const noticed = new Promise<void>((resolve) => (ignore = test.changes.on(tokenId, resolve)));
  /** The first time something changes between the reading and its use. */
  class OvertakenAccess extends Access {
    private isFirst = true;
    override async renew(caller: Caller) {
      const now = await super.renew(caller);
      if (this.isFirst) {
        this.isFirst = false;
        await test.db.token.update({ where: { id: tokenId }, data: { scopes: ['vms:read'] } });
        await noticed;
        ignore();
      }
      return now;
    }
  }
  const access = new OvertakenAccess(test.db);
  const { listener, over } = await serve({ toolsListChanged: true }, { access, beatMs: 60_000 });
  await listener.frame(({ method }) => method === 'notifications/tools/list_changed');
  listener.close();
  await over;
});

it('ends when the token has expired', async () => {
  const { listener, over } = await serve({ toolsListChanged: true });
  const expiresAt = new Date(Date.now() + 200);
  await test.db.token.update({ where: { id: user.caller.tokenId }, data: { expiresAt } });
  await over;
  await eventually(() => listener.ended());
  expect(listener.frames).toHaveLength(1);
});

it('goes on after the database has failed', async () => {
  const uri = `longhaul://vms/${vm.id}`;
  const { listener, over } = await serve({ resourceSubscriptions: [uri] });
  await listener.frame(() => true);
  await test.db.$executeRaw`ALTER TABLE tokens RENAME TO hidden`;
  await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
  await beats(listener, 3);
  await test.db.$executeRaw`ALTER TABLE hidden RENAME TO tokens`;
  await listener.frame(({ params }) => params?.uri === uri);
  listener.close();
  await over;
});

it('shows that it lives', async () => {
  const { listener, over } = await serve({ toolsListChanged: true });
  await beats(listener, 3);
  listener.close();
  await over;
});

it('is cut off when its peer takes nothing any more', async () => {
  const before = await timersWithFullPool();
  const taskId = await submit();
  const ref = await worker.claim(taskId);
  const { listener, response, over } = await serve({ taskIds: [taskId] }, { read: false, stalledMs: 300 });
  let isOver = false;
  const ending = over.then(() => (isOver = true));
  for (let n = 1; !isOver; n++) await worker.progress(ref, { progress: n, message: 'x'.repeat(500_000) });
  await ending;
  expect(response.destroyed).toBe(true);
  listener.close();
  await eventually(() => timers() <= before);
});
