import type { Vm } from '@longhaul/persistence';
import type { Progress } from '@modelcontextprotocol/client';
import { z } from 'zod';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { connectModern, connectNewer, connectOlder } from '../../test/support/sessions.js';
import type { ApiServer } from './server.js';

let test: TestDatabase;
let worker: HandWorker;
let api: ApiServer;
let token: string;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  worker = new HandWorker(test);
});
afterAll(() => test.drop());

type Connect = typeof connectOlder;
const modern = connectModern as unknown as Connect;
const newer = connectNewer as unknown as Connect;

describe.each([
  ['2026-07-28', 'false', modern],
  ['2025-11-25, SDK v1', 'false', connectOlder],
  ['2025-11-25, SDK v2', 'false', newer],
  ['2025-11-25, SDK v1, in a session', 'true', connectOlder],
  ['2025-11-25, SDK v2, in a session', 'true', newer],
])('%s', (_name, MCP_SESSIONS, connect) => {
  beforeAll(async () => {
    api = await startTestApi(test.url, { MCP_SESSIONS });
  });
  afterAll(() => api.close());
  beforeEach(async () => {
    const user = await makeUser(test.db);
    token = user.token;
    vm = await makeVm(test.db, user.caller);
  });

  it('is told how far a job is while the call waits for it', async () => {
    const client = await connect(mcpUrl(api.port), token);
    const told: Progress[] = [];
    const params = { name: 'exec_vm_command', arguments: { vm_id: vm.id, command: 'make' } };
    const onprogress = (progress: Progress) => void told.push(progress);
    const answer = client.request({ method: 'tools/call', params }, z.looseObject({}), { onprogress });
    const { id } = await eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));
    const ref = await worker.claim(id);
    await worker.progress(ref, { progress: 1, total: 30, message: '1 s, 5 B of output' });
    await eventually(() => told.length === 1);
    await worker.progress(ref, { progress: 2, total: 30 });
    await eventually(() => told.length === 2);
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 2 } });
    expect(await answer).toMatchObject({ structuredContent: { status: 'succeeded' } });
    expect(told).toEqual([
      { progress: 1, total: 30, message: '1 s, 5 B of output' },
      { progress: 2, total: 30 },
    ]);
    await client.close();
  });

  it('has its trace on the job and in the audit, if it is one', async () => {
    const client = await connect(mcpUrl(api.port), token);
    const start = async (traceparent: string) => {
      const params = {
        name: 'start_vm_command',
        arguments: { vm_id: vm.id, command: 'make' },
        _meta: { traceparent },
      };
      const answer = await client.request({ method: 'tools/call', params }, z.looseObject({}));
      const { command_id: id } = (answer as { structuredContent: { command_id: string } }).structuredContent;
      const job = await test.db.job.findUniqueOrThrow({ where: { id } });
      const event = await test.db.auditEvent.findFirstOrThrow({ where: { jobId: id, event: 'call' } });
      await worker.finish(await worker.claim(id), { state: 'cancelled' });
      return { traceparent: job.traceparent, traceId: event.traceId };
    };
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const traceparent = `00-${traceId}-b7ad6b7169203331-01`;
    expect(await start(traceparent)).toEqual({ traceparent, traceId });
    expect(await start(`${traceparent}; DROP TABLE jobs`)).toEqual({ traceparent: null, traceId: null });
    await client.close();
  });
});
