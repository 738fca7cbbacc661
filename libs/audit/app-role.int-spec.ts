import { Database, newId } from '@longhaul/persistence';
import type { ApiServer } from '../../apps/api/server.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { call, connect, mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { makeStaff, rest } from '../../test/support/rest.js';
import { dropExpired, makePartitions } from './partitions.js';
import { sealEvents } from './seal.js';
import { verifyAudit, type Finding } from './verify.js';

const login = `app_${newId().slice(0, 8)}`;

let test: TestDatabase;
let app: Database;
let api: ApiServer;
beforeAll(async () => {
  test = await testDatabase();
  const url = new URL(test.url);
  await test.db.$executeRawUnsafe(`CREATE ROLE ${login} LOGIN PASSWORD 'app' IN ROLE longhaul_app`);
  await test.db.$executeRawUnsafe(`GRANT CREATE ON DATABASE ${url.pathname.slice(1)} TO ${login}`);
  url.username = login;
  url.password = 'app';
  app = new Database({ DATABASE_URL: url.href, DATABASE_POOL: 4 });
  api = await startTestApi(url.href);
});
afterAll(async () => {
  await api.close();
  await app.onApplicationShutdown();
  await test.db.$executeRawUnsafe(`DROP OWNED BY ${login} CASCADE`);
  await test.db.$executeRawUnsafe(`DROP ROLE ${login}`);
  await test.drop();
});

it('serves calls, submits and cancels jobs, and audits them', async () => {
  const { token, caller } = await makeUser(test.db);
  const vm = await makeVm(test.db, caller);
  const client = await connect(mcpUrl(api.port), token);
  await call(client, 'whoami');
  const { command_id } = await call(client, 'start_vm_command', { vm_id: vm.id, command: 'true' });
  await call(client, 'cancel_vm_command', { command_id });
  await client.close();
  const { events } = await test.audit.search({ userId: caller.userId });
  expect(events.map(({ event, tool }) => (event === 'call' ? tool : event)).reverse()).toEqual([
    'whoami',
    'job.submitted',
    'start_vm_command',
    'job.cancel_requested',
    'job.finished',
    'cancel_vm_command',
  ]);
});

it('serves the admin interface', async () => {
  const { token } = await makeStaff(test);
  expect(await rest(api.port, token, 'GET', `/admin/v1/audit?request_id=${newId()}`)).toMatchObject({
    status: 200,
  });
});

it('lets workers seal and make partitions, and drop nothing', async () => {
  await test.db.$executeRaw`SELECT audit_make_partition('2020-01-01')`;
  await makePartitions(app);
  let count = 0;
  await eventually(async () => {
    await sealEvents(app, (seal) => (count += seal.count));
    return count > 0;
  });
  expect(await dropExpired(app, 400)).toEqual([]);
  const findings: Finding[] = [];
  expect(await verifyAudit(app, {}, (finding) => findings.push(finding))).toMatchObject({ events: count });
  expect(findings).toEqual([]);
  expect(await dropExpired(test.db, 400)).toEqual(['audit_events_2020_01']);
});
