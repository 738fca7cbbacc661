import { SCOPES, createToken, setSwitch } from '@longhaul/access';
import { McpServers } from '@longhaul/mcp/server';
import type { Vm } from '@longhaul/persistence';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { listen } from '../../test/support/listen.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { modernRequest, rpc } from '../../test/support/tasks.js';
import { product } from './api.module.js';
import type { ApiServer } from './server.js';

// Every method of the protocol that this server answers, beside tools/call, against the gates that it passes.

let test: TestDatabase;
let api: ApiServer;
/** With one call a minute. */
let tight: ApiServer;

beforeAll(async () => {
  test = await testDatabase();
  api = await startTestApi(test.url);
  tight = await startTestApi(test.url, { RATE_CALLS: 1 });
});
afterAll(async () => {
  await Promise.all([api.close(), tight.close()]);
  await test.drop();
});
afterEach(async () => {
  await test.db.killSwitch.deleteMany();
});

/** Whose it is, and what a request may name. */
interface Scene {
  userId: string;
  token: string;
  tokenId: string;
  vm: Vm;
  taskId: string;
}

type Line = 'modern' | 'older';

interface Method {
  lines: Line[];
  params(scene: Scene): Record<string, unknown>;
  /** It shows or changes something of somebody: what a stranger is answered. */
  foreign?: (answer: Answer) => void;
  /** It does more than read. */
  changes?: true;
}

interface Answer {
  status: number;
  code?: string | number;
  result?: Record<string, unknown>;
}

const [prompt] = product.prompts as [(typeof product.prompts)[number]];
const BOTH: Line[] = ['modern', 'older'];
const nothing = () => ({});
const task = ({ taskId }: Scene) => ({ taskId });
const ofJob = ({ taskId }: Scene) => ({ uri: `longhaul://jobs/${taskId}` });
const refused = ({ code }: Answer) => expect(code).toBe('job_not_found');
const notFound = ({ code }: Answer) => expect(String(code)).toMatch(/^-3200?2$|^-32602$|not_found/);
const completion = {
  ref: { type: 'ref/resource', uri: 'longhaul://vms/{vm_id}' },
  argument: { name: 'vm_id', value: '' },
};

const METHODS: Record<string, Method> = {
  'tools/list': { lines: BOTH, params: nothing },
  'prompts/list': { lines: BOTH, params: nothing },
  'prompts/get': {
    lines: BOTH,
    params: () => ({ name: prompt.name, arguments: prompt.arguments }),
  },
  'resources/templates/list': { lines: BOTH, params: nothing },
  'resources/list': {
    lines: BOTH,
    params: nothing,
    foreign: ({ result }) => expect(result).toMatchObject({ resources: [] }),
  },
  'resources/read': { lines: BOTH, params: ofJob, foreign: notFound },
  'resources/subscribe': { lines: ['older'], params: ofJob, foreign: notFound },
  'completion/complete': {
    lines: BOTH,
    params: () => completion,
    foreign: ({ result }) => expect(result).toMatchObject({ completion: { values: [] } }),
  },
  'tasks/get': { lines: BOTH, params: task, foreign: refused },
  'tasks/update': {
    lines: ['modern'],
    params: (scene) => ({ ...task(scene), inputResponses: {} }),
    foreign: refused,
    changes: true,
  },
  'tasks/cancel': { lines: BOTH, params: task, foreign: refused, changes: true },
  'tasks/result': { lines: ['older'], params: task, foreign: refused },
  'tasks/list': {
    lines: ['older'],
    params: nothing,
    foreign: ({ result }) => expect(result).toEqual({ tasks: [] }),
  },
};

/** What has gates of its own (gates.int-spec.ts), says nothing of anybody, or is refused with the connection. */
const ELSEWHERE = [
  'tools/call',
  'initialize',
  'ping',
  'logging/setLevel',
  'server/discover',
  'resources/unsubscribe',
];

const CASES = Object.entries(METHODS).flatMap(([name, { lines }]) =>
  lines.map((line) => [name, line] as const),
);

async function sceneOf(): Promise<Scene> {
  const { caller } = await makeUser(test.db);
  const { userId } = caller;
  const { id: tokenId, token } = await createToken(test.db, userId, SCOPES);
  const vm = await makeVm(test.db, caller);
  const params = { name: 'start_vm_command', arguments: { vm_id: vm.id, command: 'true' } };
  const { result } = await rpc(mcpUrl(api.port), token, 'tools/call', params);
  return { userId, token, tokenId, vm, taskId: result!.taskId as string };
}

async function send(
  server: ApiServer,
  line: Line,
  method: string,
  token: string,
  params: object,
): Promise<Answer> {
  const { body, headers, ...rest } = modernRequest(token, method, params as Record<string, unknown>);
  const { authorization, accept } = headers;
  const older = {
    headers: {
      authorization: authorization!,
      accept: accept!,
      'content-type': 'application/json',
      'mcp-protocol-version': '2025-11-25',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  };
  const response = await fetch(mcpUrl(server.port), {
    ...rest,
    ...(line === 'modern' ? { body, headers } : older),
  });
  const text = await response.text();
  const answer = JSON.parse(text.startsWith('{') ? text : text.split('data: ').at(-1)!) as {
    code?: string;
    error?: { code: number; data?: { code?: string } };
    result?: Record<string, unknown>;
  };
  return {
    status: response.status,
    code: answer.code ?? answer.error?.data?.code ?? answer.error?.code,
    result: answer.result,
  };
}

it.each(['modern', 'session'] as const)('knows every method of a server that is %s', (serving) => {
  const config = { JOB_RETENTION_DAYS: 1 } as never;
  const server = new McpServers(product, config, undefined as never, undefined as never).serve(serving);
  const { _requestHandlers: handlers } = server as unknown as { _requestHandlers: Map<string, unknown> };
  const unknown = [...handlers.keys()].filter(
    (method) => !ELSEWHERE.includes(method) && !(method in METHODS),
  );
  expect(unknown).toEqual([]);
});

describe.each(CASES)('%s (%s)', (method, line) => {
  const { params, foreign, changes } = METHODS[method]!;
  const ask = (scene: Scene, server = api, about = scene) =>
    send(server, line, method, scene.token, params(about));
  const ended = async ({ taskId: id }: Scene) => {
    await test.db.job.update({ where: { id }, data: { state: 'cancelled', finishedAt: new Date() } });
  };

  it('is let through when every gate is open', async () => {
    const scene = await sceneOf();
    if (method === 'tasks/result') await ended(scene);
    expect(await ask(scene)).toMatchObject({ status: 200, code: undefined });
  });

  it('is held up by authentication, switches and accounts', async () => {
    const scene = await sceneOf();
    await setSwitch(test.db, 'mcp', true, { actor: 'test' });
    expect(await ask(scene)).toMatchObject({ status: 503, code: 'switched_off' });
    await setSwitch(test.db, 'mcp', false, { actor: 'test' });
    await test.db.user.update({ where: { id: scene.userId }, data: { standing: 'suspended' } });
    expect(await ask(scene)).toMatchObject({ status: 403, code: 'vm_state_blocked' });
    await test.db.token.update({ where: { id: scene.tokenId }, data: { revokedAt: new Date() } });
    expect(await ask(scene)).toMatchObject({ status: 401, code: 'unauthenticated' });
  });

  it("is held up by the caller's rate", async () => {
    const scene = await sceneOf();
    const key = `call:${scene.userId}`;
    const expire = Date.now() + 60_000;
    await test.db.rateLimit.upsert({
      where: { key },
      create: { key, points: 1, expire },
      update: { expire },
    });
    expect(await ask(scene, tight)).toMatchObject({ code: 'rate_limited' });
  });

  if (foreign) {
    it('shows strangers and restricted tokens what does not exist', async () => {
      const [scene, stranger] = [await sceneOf(), await makeUser(test.db)];
      foreign(await send(api, line, method, stranger.token, params(scene)));
      const other = await makeVm(test.db, stranger.caller);
      for (const data of [{ vmIds: [other.id] }, { vmIds: [], projectIds: [other.projectId] }]) {
        await test.db.token.update({ where: { id: scene.tokenId }, data });
        foreign(await ask(scene));
      }
    });
  }

  if (changes) {
    it('is not for viewers and flagged accounts', async () => {
      const { userId, ...scene } = await sceneOf();
      await test.db.projectMember.updateMany({ where: { userId }, data: { role: 'viewer' } });
      expect(await ask({ userId, ...scene })).toMatchObject({ code: 'forbidden_role' });
      await test.db.user.update({ where: { id: userId }, data: { standing: 'flagged' } });
      expect(await ask({ userId, ...scene })).toMatchObject({ code: 'vm_state_blocked' });
      expect(await test.db.job.findUnique({ where: { id: scene.taskId } })).toMatchObject({
        state: 'queued',
      });
    });
  }
});

it('tells nothing to who has lost the right to ask while waiting', async () => {
  const scene = await sceneOf();
  const waiting = send(api, 'older', 'tasks/result', scene.token, { taskId: scene.taskId });
  // What came later has been answered: the first one waits by now.
  await rpc(mcpUrl(api.port), scene.token, 'tools/call', { name: 'whoami', arguments: {} });
  await test.db.token.update({ where: { id: scene.tokenId }, data: { revokedAt: new Date() } });
  const end = { state: 'cancelled', finishedAt: new Date() } as const;
  await test.db.job.update({ where: { id: scene.taskId }, data: end });
  expect(await waiting).toMatchObject({ status: 200, code: 'unauthenticated', result: undefined });
});

describe('subscriptions/listen', () => {
  const listenTo = (scene: Scene, server: ApiServer, token = scene.token) =>
    listen(mcpUrl(server.port), token, { taskIds: [scene.taskId] });

  it("is held up by the caller's rate", async () => {
    const scene = await sceneOf();
    const key = `call:${scene.userId}`;
    const expire = Date.now() + 60_000;
    await test.db.rateLimit.upsert({
      where: { key },
      create: { key, points: 1, expire },
      update: { expire },
    });
    const { frames, ended } = await listenTo(scene, tight);
    await eventually(ended);
    expect(frames[0]?.error?.data).toMatchObject({
      code: 'rate_limited',
      details: { retry_after: expect.any(Number) },
    });
  });

  it('promises strangers nothing', async () => {
    const [scene, stranger] = [await sceneOf(), await makeUser(test.db)];
    const stream = await listenTo(scene, api, stranger.token);
    const { params } = await stream.frame(
      ({ method }) => method === 'notifications/subscriptions/acknowledged',
    );
    expect(params!.notifications).toEqual({});
    stream.close();
  });
});
