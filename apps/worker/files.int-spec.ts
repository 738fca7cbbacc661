import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@longhaul/config';
import { JobLog } from '@longhaul/job-log';
import { Attempts, Jobs } from '@longhaul/jobs';
import type { Vm } from '@longhaul/persistence';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { setLogLevel } from '@longhaul/telemetry';
import { Handlers } from '@longhaul/toolsets/handler';
import { handlers } from '@longhaul/toolsets/handlers';
import { makeArtifact, testArtifacts } from '../../test/support/artifacts.js';
import {
  TEST_SECRETS_KEYS,
  makeUser,
  makeVm,
  testDatabase,
  type TestDatabase,
} from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { NoDelivery } from '../../test/support/hand-worker.js';
import { connect, mcpUrl, startTestApi, type McpClient } from '../../test/support/mcp.js';
import {
  namespaceAgentLacks,
  startNamespaceAgent,
  type NamespaceAgent,
} from '../../test/support/namespace-agent.js';
import type { ApiServer } from '../api/server.js';
import { workerConfig } from './config.js';
import { JobRunner } from './job-runner.js';
import { VmProviders } from './vm-providers.js';

// The tools for files from the client to a real guest agent and back, without a VM.

const lacks = namespaceAgentLacks();
const inGuest = lacks ? describe.skip : describe;

inGuest(`the tools for files${lacks ? `, not tested here, as that needs ${lacks}` : ''}`, () => {
  let test: TestDatabase;
  let api: ApiServer;
  let guest: NamespaceAgent;
  let home: string;
  let user: Awaited<ReturnType<typeof makeUser>>;
  let vm: Vm;
  let client: McpClient;
  let runner: JobRunner;
  const stopping = new AbortController();
  let worker: Promise<unknown>;

  beforeAll(async () => {
    setLogLevel('silent');
    test = await testDatabase();
    home = await mkdtemp(join(tmpdir(), 'files-'));
    guest = await startNamespaceAgent();
    const limits = { RATE_CALLS: 0, RATE_VM_CALLS: 0, RATE_SUBMISSIONS: 0 };
    api = await startTestApi(test.url, { LONGHAUL_HOME: home, ...limits });
    user = await makeUser(test.db);
    vm = await newVm();
    client = await connect(new URL('/mcp/x/all', mcpUrl(api.port)), user.token);
    const config = parseConfig(workerConfig, { DATABASE_URL: test.url, LONGHAUL_HOME: home });
    const { db, changes, audit } = test;
    const secrets = new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
    runner = new JobRunner(
      config,
      db,
      new Attempts(db, new Jobs(db, audit, new NoDelivery(), changes), config),
      new JobLog(db),
      changes,
      new VmProviders(config, db, secrets),
      new Handlers(handlers),
      testArtifacts(test, join(home, 'artifacts')).artifacts,
      secrets,
    );
    worker = work();
  });
  afterAll(async () => {
    stopping.abort();
    await worker;
    await client?.close();
    await api?.close();
    await guest?.stop();
    await test?.drop();
    await rm(home, { recursive: true, force: true });
  });

  /** Runs what is queued, one job at a time. */
  const work = () =>
    eventually(
      async () => {
        const job = await test.db.job.findFirst({
          where: { state: 'queued' },
          orderBy: { createdAt: 'asc' },
        });
        if (job) await runner.consume(job.id);
        return stopping.signal.aborted;
      },
      { withinMs: 600_000 },
    );
  /** A machine whose guest agent is that of the namespace. */
  const newVm = (values = {}) =>
    makeVm(test.db, user.caller, {
      provider: 'guest-agent',
      connection: { agent: guest.socketPath },
      ...values,
    });
  const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
  type Answer = Record<string, unknown> & { isError: boolean };
  const call = async (name: string, args: object): Promise<Answer> => {
    const { structuredContent, content, isError } = await client.callRaw(name, { vm_id: vm.id, ...args });
    const said =
      structuredContent ?? (JSON.parse((content as [{ text: string }])[0].text) as { error: object }).error;
    return { ...(said as object), isError: isError === true };
  };
  const upload = async (data: Buffer, more: object = {}) => {
    const facts = { filename: 'f', size_bytes: data.length, sha256: sha256(data), purpose: 'config' };
    const announced = await call('create_artifact_upload', { ...facts, ...more });
    const { url, method, headers, artifact_id } = announced as unknown as Record<string, string> & {
      headers: Record<string, string>;
    };
    const put = await fetch(new URL(new URL(url!).pathname + new URL(url!).search, mcpUrl(api.port)), {
      method,
      headers,
      body: new Uint8Array(data),
    });
    expect(put.status).toBeLessThan(300);
    return artifact_id!;
  };
  const sh = async (script: string) => {
    const run = guest.channel.session((session) => session.run({ path: 'sh', args: ['-c', script] }, 20_000));
    return (await run).stdout.toString();
  };

  it('install an artifact with the mode of its purpose, again without harm, and put its end off', async () => {
    const data = Buffer.from('listen 80;\n');
    const artifact_id = await upload(data);
    const soon = new Date(Date.now() + 60_000);
    await test.db.artifact.update({ where: { id: artifact_id }, data: { expiresAt: soon } });
    const args = { artifact_id, destination_path: '/tmp/new/app.conf', idempotency_key: 'once' };
    const first = await call('install_artifact', args);
    expect(first).toMatchObject({
      isError: false,
      status: 'succeeded',
      changed: true,
      size_bytes: data.length,
      sha256: sha256(data),
      destination_path: '/tmp/new/app.conf',
    });
    expect(await sh('stat -c "%a %U:%G" /tmp/new/app.conf; cat /tmp/new/app.conf')).toBe(
      '640 root:root\nlisten 80;\n',
    );
    const { expiresAt } = await test.db.artifact.findUniqueOrThrow({ where: { id: artifact_id } });
    expect(expiresAt.getTime()).toBeGreaterThan(soon.getTime());
    expect((await call('install_artifact', args)).job_id).toBe(first.job_id);
    const again = await call('install_artifact', { ...args, idempotency_key: undefined });
    expect(again).toMatchObject({ status: 'succeeded', changed: false });
    const other = { ...args, mode: '0600', owner: '1:2', backup: true, idempotency_key: undefined };
    expect(await call('install_artifact', other)).toMatchObject({ status: 'succeeded', changed: true });
    expect(await sh('stat -c "%n %a %u:%g" /tmp/new/*')).toBe(
      '/tmp/new/app.conf 600 1:2\n/tmp/new/app.conf.longhaul-backup 640 0:0\n',
    );
    const [intent] = await test.db.jobIntent.findMany({ where: { jobId: first.job_id as string } });
    expect(intent).toMatchObject({ what: 'install' });
  });

  it('say why an artifact cannot be installed', async () => {
    const data = randomBytes(10_000);
    const install = (artifact_id: string, more: object = {}) =>
      call('install_artifact', { artifact_id, destination_path: '/tmp/refused', ...more });
    const good = await upload(data);
    const elsewhere = await newVm();
    const stranger = await makeUser(test.db);
    const foreign = await makeArtifact(test, await makeVm(test.db, stranger.caller), stranger.caller.userId);
    const row = (values: object) => makeArtifact(test, vm, user.caller.userId, values);
    const refused: [string, Promise<Answer>][] = [
      ['artifact_not_found', install(good, { vm_id: elsewhere.id })],
      ['artifact_not_found', install(foreign.id)],
      ['artifact_not_found', install('x')],
      ['artifact_not_uploaded', install((await row({ uploadedAt: null })).id)],
      ['artifact_expired', install((await row({ expiresAt: new Date(0) })).id)],
      ['invalid_arguments', install(good, { destination_path: 'relative' })],
      ['invalid_arguments', install(good, { destination_path: '/tmp/' })],
      ['invalid_arguments', install(good, { destination_path: '/tmp/../etc/x' })],
      ['invalid_arguments', install(good, { destination_path: '/tmp//x' })],
      ['invalid_arguments', install(good, { destination_path: `/tmp/a\nb` })],
      ['invalid_arguments', install(good, { destination_path: `/tmp/${'x'.repeat(256)}` })],
      ['invalid_arguments', install(good, { mode: '888' })],
      ['invalid_arguments', install(good, { owner: 'root' })],
      ['invalid_arguments', install(good, { owner: '--reference=/x:y' })],
    ];
    const before = await test.db.job.count();
    for (const [code, answer] of refused) expect(await answer).toMatchObject({ isError: true, code });
    expect(await test.db.job.count()).toBe(before);

    const failed: [string, object][] = [
      ['path_denied', { destination_path: '/run/longhaul/x' }],
      ['path_is_directory', { destination_path: '/tmp' }],
      ['path_not_a_directory', { destination_path: '/tmp/file/x' }],
      ['invalid_arguments', { owner: 'nobody-of-this-name:root' }],
    ];
    await sh('echo x >/tmp/file');
    for (const [code, more] of failed)
      expect(await install(good, more)).toMatchObject({ isError: true, status: 'failed', error: { code } });

    const path = join(home, 'artifacts');
    const { store } = testArtifacts(test, path);
    const stored = await eventually(async () => (await store.stat(good)) && good);
    const { execFileSync } = await import('node:child_process');
    const file = execFileSync('find', [path, '-name', `*${stored}*`, '-type', 'f'])
      .toString()
      .trim()
      .split('\n')[0]!;
    const wrong = Buffer.from(data);
    wrong[5_000]! ^= 1;
    await writeFile(file, wrong);
    const error = { code: 'artifact_sha_mismatch' };
    expect(await install(good, { destination_path: '/tmp/file' })).toMatchObject({ status: 'failed', error });
    await truncate(file, 0);
    expect(await install(good, { destination_path: '/tmp/file' })).toMatchObject({ status: 'failed' });
    expect(await sh('cat /tmp/file; ls /tmp/refused')).toBe('x\n');
  });

  it('read a file by pieces, text as text and the rest as base64', async () => {
    await sh("printf 'Grüße, %s\\n' Welt >/tmp/text; head -c 100000 /dev/urandom >/tmp/bytes");
    const path = '/tmp/text';
    expect(await call('read_vm_file', { path })).toMatchObject({
      content: 'Grüße, Welt\n',
      encoding: 'utf-8',
      next_offset: 14,
      eof: true,
      size_bytes: 14,
    });
    // In the middle of a character.
    expect(await call('read_vm_file', { path, max_bytes: 3 })).toMatchObject({
      content: 'Gr',
      next_offset: 2,
      eof: false,
    });
    const pieces: Buffer[] = [];
    for (let offset = 0, eof = false; !eof;) {
      const piece = await call('read_vm_file', { path: '/tmp/bytes', offset, max_bytes: 65_536 });
      pieces.push(Buffer.from(piece.content as string, piece.encoding as BufferEncoding));
      offset = piece.next_offset as number;
      eof = piece.eof as boolean;
    }
    expect(sha256(Buffer.concat(pieces))).toBe((await sh('sha256sum </tmp/bytes')).slice(0, 64));
    expect(await call('read_vm_file', { path, offset: 100 })).toMatchObject({ content: '', eof: true });
    await sh('mkfifo /tmp/fifo');
    const codes = {
      '/tmp': 'path_is_directory',
      '/tmp/fifo': 'path_not_a_file',
      '/tmp/no': 'path_not_found',
      '/etc/shadow': 'path_denied',
    };
    for (const [wrong, code] of Object.entries(codes))
      expect(await call('read_vm_file', { path: wrong })).toMatchObject({
        isError: true,
        status: 'failed',
        error: { code },
      });
    expect(await call('read_vm_file', { path: 'x' })).toMatchObject({ code: 'invalid_arguments' });
  });

  it('list a directory page by page', async () => {
    await sh('mkdir /tmp/d; cd /tmp/d; touch a c; ln -s /tmp b; printf x >"$(printf \'\\377\')"');
    const first = await call('list_vm_directory', { path: '/tmp/d', limit: 3 });
    expect(first).toMatchObject({
      entries: [
        { name: 'a', type: 'file', size_bytes: 0, mode: '0644', owner: 'root:root' },
        { name: 'b', type: 'symlink', target: '/tmp' },
        { name: 'c' },
      ],
      next_cursor: expect.any(String),
    });
    const rest = await call('list_vm_directory', { path: '/tmp/d', cursor: first.next_cursor });
    expect(rest.entries).toEqual([
      expect.objectContaining({ name: '\ufffd', name_base64: '/w==', size_bytes: 1 }),
    ]);
    expect(rest).not.toHaveProperty('next_cursor');
    for (const [path, code] of [
      ['/tmp/text', 'path_not_a_directory'],
      ['/proc/1', 'path_denied'],
      ['/no', 'path_not_found'],
    ])
      expect(await call('list_vm_directory', { path })).toMatchObject({ isError: true, error: { code } });
  });
});
