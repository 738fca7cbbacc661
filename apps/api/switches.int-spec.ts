import { createToken, setSwitch } from '@longhaul/access';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { makeStaff, rest } from '../../test/support/rest.js';
import { listen } from '../../test/support/listen.js';
import { modernRequest, rpc } from '../../test/support/tasks.js';
import { eventually } from '../../test/support/eventually.js';
import type { ApiServer } from './server.js';

const TRIES = 1_000;

let test: TestDatabase;
let replicas: [ApiServer, ApiServer];
let user: Awaited<ReturnType<typeof makeUser>>;

beforeAll(async () => {
  test = await testDatabase();
  const start = () => startTestApi(test.url, { RATE_CALLS: 0, RATE_VM_CALLS: 0, RATE_SUBMISSIONS: 0 });
  replicas = [await start(), await start()];
  user = await makeUser(test.db);
});
afterAll(async () => {
  await Promise.all(replicas.map((api) => api.close()));
  await test.drop();
});

const turn = (name: 'mcp' | 'exec', engaged: boolean) =>
  setSwitch(test.db, name, engaged, { actor: 'test', reason: 'incident 7' });
const url = (replica: number) => mcpUrl(replicas[replica]!.port);

/** What another replica says to the very next request. */
const whoami = (token: string, method = 'tools/call', params: object = { name: 'whoami', arguments: {} }) =>
  rpc(url(1), token, method, params as Record<string, unknown>);

/** Of a command that another replica is asked to start. */
async function codeOf(name: string, vmId: string): Promise<string | undefined> {
  const { result } = await whoami(user.token, 'tools/call', {
    name,
    arguments: { vm_id: vmId, command: 'true' },
  });
  const [{ text }] = result!.content as [{ text: string }];
  return (JSON.parse(text) as { error?: { code: string } }).error?.code;
}

it(`is in force on another replica with its next request, ${TRIES} times`, async () => {
  let leaks = 0;
  for (let n = 0; n < TRIES; n++) {
    await turn('mcp', true);
    if ((await whoami(user.token)).status !== 503) leaks++;
    await turn('mcp', false);
    if ((await whoami(user.token)).status !== 200) leaks++;
  }
  expect(leaks).toBe(0);
});

it(`takes a revoked token no more on another replica, ${TRIES} times`, async () => {
  let leaks = 0;
  for (let n = 0; n < TRIES; n++) {
    const { id, token } = await createToken(test.db, user.caller.userId, ['vms:read']);
    if ((await whoami(token)).status !== 200) leaks++;
    await test.db.token.update({ where: { id }, data: { revokedAt: new Date() } });
    if ((await whoami(token)).status !== 401) leaks++;
  }
  expect(leaks).toBe(0);
});

it(`starts no command on another replica once exec is off, ${TRIES} times`, async () => {
  const { token: staff } = await makeStaff(test);
  const vm = await makeVm(test.db, user.caller);
  const body = { engaged: true, reason: 'incident 7' };
  let leaks = 0;
  for (let n = 0; n < TRIES; n++) {
    await rest(replicas[0].port, staff, 'PUT', '/admin/v1/switches/exec', body);
    if ((await codeOf('start_vm_command', vm.id)) !== 'switched_off') leaks++;
    await turn('exec', false);
    if ((await codeOf('start_vm_command', 'no-such-vm')) !== 'vm_not_found') leaks++;
  }
  expect(leaks).toBe(0);
  expect(await test.db.job.count({ where: { vmId: vm.id } })).toBe(0);
});

it('lets nothing through on any replica while nobody can say how the switches are', async () => {
  const vm = await makeVm(test.db, user.caller);
  const start = { name: 'start_vm_command', arguments: { vm_id: vm.id, command: 'true' } };
  await test.db.$executeRaw`ALTER TABLE kill_switches RENAME TO kill_switches_away`;
  try {
    for (const replica of [0, 1]) {
      for (const params of [start, { name: 'whoami', arguments: {} }]) {
        const response = await fetch(url(replica), modernRequest(user.token, 'tools/call', params));
        expect(response.status).toBe(503);
        expect(await response.json()).toMatchObject({ code: 'unavailable', retryable: true });
      }
    }
  } finally {
    await test.db.$executeRaw`ALTER TABLE kill_switches_away RENAME TO kill_switches`;
  }
  expect(await test.db.job.count({ where: { vmId: vm.id } })).toBe(0);
  expect(await whoami(user.token)).toMatchObject({ status: 200 });
});

describe('the switch mcp', () => {
  afterEach(() => turn('mcp', false));

  it.each([
    'tools/list',
    'prompts/list',
    'resources/list',
    'tasks/get',
    'subscriptions/listen',
    'server/discover',
  ])('refuses %s, and says why', async (method) => {
    await turn('mcp', true);
    const response = await fetch(
      url(1),
      modernRequest(user.token, method, { taskId: 'x', notifications: {} }),
    );
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({
      code: 'switched_off',
      message: expect.stringContaining('incident 7'),
      retryable: true,
      details: { switch: 'mcp', reason: 'incident 7' },
    });
    const last = await test.db.auditEvent.findFirst({
      where: { code: 'switched_off' },
      orderBy: { id: 'desc' },
    });
    expect(last).toMatchObject({
      result: 'refused',
      userId: user.caller.userId,
      tokenId: user.caller.tokenId,
    });
  });

  it('refuses staff like anybody, and strangers as before', async () => {
    await turn('mcp', true);
    const staff = await makeUser(test.db);
    await test.db.user.update({ where: { id: staff.caller.userId }, data: { staff: true } });
    expect(await whoami(staff.token)).toMatchObject({ status: 503 });
    expect(await whoami('lh_none')).toMatchObject({ status: 401 });
  });

  it('ends streams before they tell anything', async () => {
    const vm = await makeVm(test.db, user.caller);
    const uri = `longhaul://vms/${vm.id}`;
    const stream = await listen(url(1), user.token, { resourceSubscriptions: [uri] });
    await stream.frame(({ method }) => method === 'notifications/subscriptions/acknowledged');
    await turn('mcp', true);
    await test.db.vm.update({ where: { id: vm.id }, data: { powerState: 'stopped' } });
    await eventually(() => stream.ended());
    expect(stream.updates(uri)).toBe(0);
  });
});

describe('the switch exec', () => {
  afterEach(() => turn('exec', false));

  it('refuses commands, before anything is said of the VM, and lets all else pass', async () => {
    await turn('exec', true);
    for (const name of ['exec_vm_command', 'start_vm_command']) {
      const { result } = await whoami(user.token, 'tools/call', {
        name,
        arguments: { vm_id: 'no-such-vm', command: 'true' },
      });
      const [{ text }] = result!.content as [{ text: string }];
      expect(JSON.parse(text)).toMatchObject({
        error: { code: 'switched_off', details: { switch: 'exec', reason: 'incident 7' } },
      });
    }
    expect(await whoami(user.token)).toMatchObject({ status: 200, result: { structuredContent: {} } });
  });
});
