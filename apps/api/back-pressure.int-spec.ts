import { makeHost, makeUser, makeVm } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { NO_RATES, mcpUrl, testApi } from '../../test/support/mcp.js';
import { callTool } from '../../test/support/tasks.js';

const { test, api } = testApi({ ...NO_RATES, QUEUE_LIMIT: 4 });

/** A command on a VM of its own, so that no slot is in the way. */
async function start({ caller, token }: Awaited<ReturnType<typeof makeUser>>) {
  const vm = await makeVm(test.db, caller);
  return callTool(mcpUrl(api.port), token, 'start_vm_command', { vm_id: vm.id, command: 'sleep 1000' });
}
const refused = { code: 'rate_limited', details: { retry_after: 5 } };

it('says when to try again, to a project that has too much to do, then to everybody', async () => {
  await makeHost(test.db);
  const [busy, other] = [await makeUser(test.db), await makeUser(test.db)];
  await test.db.project.update({ where: { id: busy.caller.projectIds[0]! }, data: { liveJobLimit: 2 } });
  for (let n = 0; n < 2; n++) expect(await start(busy)).toMatchObject({ status: 'queued' });
  expect(await start(busy)).toMatchObject(refused);
  for (let n = 0; n < 2; n++) expect(await start(other)).toMatchObject({ status: 'queued' });
  expect(await start(other)).toMatchObject(refused);
  await test.db.job.updateMany({ data: { state: 'cancelled' } });
  await eventually(async () => (await start(other)).status === 'queued');
});
