import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Access, listSwitches, verifyPassword } from '@longhaul/access';
import { saveGrant } from '@longhaul/oauth';
import { newId } from '@longhaul/persistence';
import { Secrets, StoredSecrets, addKey, ensureKeyFile } from '@longhaul/secrets';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { startTestApi } from '../../test/support/mcp.js';
import { makePerson } from '../../test/support/oauth.js';
import { RawOauth, partOf } from '../../test/support/oauth-raw.js';

const MAIN = join(import.meta.dirname, '../../dist/apps/cli/main.js');

let test: TestDatabase;
let home: string;

beforeAll(async () => {
  test = await testDatabase();
  home = mkdtempSync(join(tmpdir(), 'longhaul-cli-'));
});
afterAll(async () => {
  await test.drop();
  rmSync(home, { recursive: true, force: true });
});

interface Ended {
  code: number;
  out: string;
  err: string;
}

async function longhaul(command: string, stdin = ''): Promise<Ended> {
  const env = { PATH: process.env.PATH, DATABASE_URL: test.url, LONGHAUL_HOME: home };
  const child = spawn(process.execPath, [MAIN, ...command.split(' ')], { env });
  child.stdin.end(stdin);
  const ended = new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? -1)));
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, out, err };
}

async function ok(command: string, stdin?: string): Promise<string> {
  const { code, out, err } = await longhaul(command, stdin);
  if (code !== 0) throw new Error(`${command}: ${err}`);
  return out;
}

const audited = (tool: string) =>
  test.db.auditEvent.findFirst({ where: { tool, event: 'call' }, orderBy: { id: 'desc' } });

describe('users', () => {
  it('are made with a password that nobody sees, suspended and restored', async () => {
    await ok('user create ada@example.test --staff --password-stdin', 'correct horse battery\n');
    const user = await test.db.user.findUniqueOrThrow({ where: { email: 'ada@example.test' } });
    expect(user).toMatchObject({ staff: true, standing: 'good' });
    expect(await verifyPassword(test.db, user.email, 'correct horse battery')).toEqual({ userId: user.id });
    expect(await audited('cli user create')).toMatchObject({
      result: 'ok',
      userAgent: expect.stringMatching(/longhaul/),
    });
    await ok('user suspend ADA@example.test');
    expect(await ok('user list')).toMatch(/ada@example\.test +suspended +staff, password/);
    await ok('user restore ada@example.test');
    await saveGrant(test.db, newId(), { userId: user.id, clientId: 'https://a.example', scopes: [] });
    const said = await ok('user password ada@example.test', 'another horse battery\n');
    expect(said).toMatch(/logged out everywhere, and 1 grants to OAuth clients are over/);
    expect(
      JSON.stringify(await test.db.auditEvent.findMany(), (_k, v) => (typeof v === 'bigint' ? `${v}` : v)),
    ).not.toContain('horse');
  });

  it.each([
    ['user create nonsense', /Not an e-mail address/],
    ['user create ada@example.test', /already/],
    ['user password ada@example.test', /12 to 512 characters/],
    ['user suspend nobody@example.test', /no user/],
    ['user create', /Usage/],
    ['user create a@b.c --reason x', /Usage/],
  ])('refuses: %s', async (command, message) => {
    const { code, err } = await longhaul(command, 'short');
    expect(code).toBe(1);
    expect(err).toMatch(message);
  });
});

describe('tokens', () => {
  it('are made as narrow as they are asked for, listed and revoked', async () => {
    const { caller } = await makeUser(test.db);
    const vm = await makeVm(test.db, caller);
    const options = `--name ci --scopes vms:read,vms:exec --vm ${vm.hostname} --expires 30d`;
    const [token] = (await ok(`token create --user ${caller.email} ${options}`)).split('\n');
    const access = new Access(test.db);
    const made = (await access.authenticate(token!))!;
    expect(made).toMatchObject({ scopes: ['vms:read', 'vms:exec'], vmIds: [vm.id] });
    const row = await test.db.token.findUniqueOrThrow({ where: { id: made.tokenId } });
    expect(row.expiresAt!.getTime() / 86_400_000).toBeCloseTo(Date.now() / 86_400_000 + 30, 1);
    const list = await ok(`token list --user ${caller.email}`);
    expect(list).toContain(`ci  vms:read,vms:exec  ${vm.id}  expires`);
    expect(list).not.toContain(token);
    await ok(`token revoke ${made.tokenId}`);
    expect(await access.authenticate(token!)).toBeUndefined();
    expect(await ok('token list')).toContain('revoked');
  });

  it.each([
    ['--scopes vms:all', /Scopes are vms:read/],
    ['--vm somebody-elses', /no VM somebody-elses/],
    ['--project none', /no project none/],
    ['--expires yesterday', /--expires takes/],
    ['--expires 2001-01-01', /--expires takes/],
  ])('refuses %s', async (option, message) => {
    const { caller } = await makeUser(test.db);
    expect((await longhaul(`token create --user ${caller.email} ${option}`)).err).toMatch(message);
  });
});

it('adds, changes and removes members, and keeps an owner', async () => {
  const [owner, other] = [(await makeUser(test.db)).caller, (await makeUser(test.db)).caller];
  const project = `project-${owner.userId}`;
  const roleOf = async () => {
    const key = { projectId: owner.projectIds[0]!, userId: other.userId };
    return (await test.db.projectMember.findUnique({ where: { projectId_userId: key } }))?.role;
  };
  await ok(`project add-member ${project} ${other.email}`);
  expect(await roleOf()).toBe('member');
  await ok(`project role ${project} ${other.email} viewer`);
  expect(await roleOf()).toBe('viewer');
  expect(await ok('project list')).toContain(`viewer  ${other.email}`);
  expect((await longhaul(`project role ${project} ${other.email} king`)).err).toMatch(/Roles are/);
  await ok(`project remove-member ${project} ${other.email}`);
  expect(await roleOf()).toBeUndefined();
  expect((await longhaul(`project remove-member ${project} ${owner.email}`)).err).toMatch(
    /at least one owner/,
  );
  expect(await audited('cli project remove-member')).toMatchObject({ arguments: { email: other.email } });
});

it('quotas of a project are shown with what is used, and changed one by one', async () => {
  const { caller } = await makeUser(test.db);
  const project = `project-${caller.userId}`;
  await makeVm(test.db, caller);
  expect(await ok(`project quota ${project}`)).toMatch(
    /^vms +1 of 20\ncpus +\d+ of 64\n(.*\n){2}jobs +0 of 1000\nconcurrency +0 of 50\n$/,
  );
  const said = await ok(
    `project quota ${project} --vms 3 --cpus 4 --memory-mb 5 --disk-gb 6 --jobs 7 --concurrency 8`,
  );
  expect(said.match(/of \d+$/gm)).toEqual(['of 3', 'of 4', 'of 5', 'of 6', 'of 7', 'of 8']);
  expect(await ok(`project quota ${project} --jobs 0`)).toMatch(
    /^vms +1 of 3\n(.*\n)*jobs +0 of 0\nconcurrency .*\n$/,
  );
  expect(await audited('cli project quota')).toMatchObject({ arguments: { name: project, liveJobLimit: 0 } });
  for (const wrong of [
    '--vms 1.5',
    '--cpus 1e3',
    '--memory-mb 9999999999',
    '--disk-gb=-1',
    '--jobs 100001',
    '--concurrency 0',
  ])
    expect((await longhaul(`project quota ${project} ${wrong}`)).err).toMatch(
      /takes a whole number from [01] to/,
    );
  expect((await longhaul('project quota nobody')).err).toMatch(/no project nobody/);
});

it('switches off and on, says why, and cancels', async () => {
  expect((await longhaul('switch exec off')).err).toMatch(/--reason/);
  expect((await longhaul('switch mcp off --reason x --cancel')).err).toMatch(/--cancel goes with/);
  expect(await ok('switch exec off --reason incident --cancel')).toMatch(/0 commands cancelled/);
  expect(await listSwitches(test.db)).toMatchObject([
    { name: 'mcp', engaged: false },
    { name: 'exec', engaged: true, reason: 'incident' },
  ]);
  expect(await ok('switch list')).toMatch(/exec +OFF +since .* incident/);
  await ok('switch exec on');
  expect(await ok('switch list')).toMatch(/exec +on/);
  expect(await audited('cli switch exec on')).toMatchObject({ result: 'ok' });
});

it('rotates the master key of what is stored', async () => {
  expect((await longhaul('key rotate')).err).toMatch(/There is no .*secrets\.key/);
  const file = join(home, 'secrets.key');
  addKey(file);
  const stored = () => new StoredSecrets(test.db, new Secrets({ SECRETS_KEY_FILE: file }));
  const key = await stored().signingKey('of-a-test');
  expect(await ok('key rotate')).toMatch(/1 stored secrets are under it now/);
  const [first, ...earlier] = readFileSync(file, 'utf8').trim().split('\n');
  expect(earlier).toHaveLength(1);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const alone = new StoredSecrets(test.db, new Secrets({ SECRETS_KEYS: first }));
  expect(await alone.signingKey('of-a-test')).toEqual(key);
});

/** For an API with the master keys of the command line. */
function keysOfHome() {
  const file = join(home, 'secrets.key');
  ensureKeyFile(file);
  return { SECRETS_KEYS: undefined, SECRETS_KEY_FILE: file };
}

describe('clients of machines', () => {
  it('are made, get tokens, are listed and revoked', async () => {
    const { caller } = await makeUser(test.db);
    const vm = await makeVm(test.db, caller);
    const api = await startTestApi(test.url, keysOfHome());
    const oauth = new RawOauth(`http://127.0.0.1:${api.port}`);
    try {
      const out = await ok(
        `client create nightly --user ${caller.email} --scopes vms:read,account:read --vm ${vm.hostname}`,
      );
      const [, id, secret] = /^client_id +(\S+)\nclient_secret +(\S+)\n/.exec(out)!;
      const token = () =>
        oauth.post('/oauth/token', {
          grant_type: 'client_credentials',
          client_id: id!,
          client_secret: secret!,
        });
      const given = String((await token()).body.access_token);
      expect(await oauth.call(given)).toMatchObject({
        status: 200,
        body: { result: { structuredContent: { email: caller.email } } },
      });
      const list = await ok(`client list --user ${caller.email}`);
      expect(list).toContain(`${id}  ${caller.email}  nightly  vms:read,account:read  ${vm.id}  holds`);
      expect(list).not.toContain(secret);
      await ok(`client revoke ${id}`);
      expect(await oauth.call(given)).toMatchObject({ status: 401 });
      expect(await token()).toMatchObject({ status: 401 });
      expect(await ok('client list')).toMatch(/nightly .* revoked \d{4}-/);
      expect((await longhaul(`client revoke ${id}`)).err).toMatch(/no such client, or it was revoked/);
      expect(await audited('cli client create')).toMatchObject({
        arguments: { name: 'nightly', vmIds: [vm.id] },
      });
      expect(await audited('cli client revoke')).toMatchObject({ arguments: { id } });
    } finally {
      await api.close();
    }
  });

  it.each([
    ['', /Say in whose name/],
    ['--user nobody@example.test', /no user/],
    ['--user EMAIL --vm somebody-elses', /no VM somebody-elses/],
    ['--user EMAIL --scopes all', /Scopes are/],
    ['--user EMAIL --expires 30d', /Usage/],
  ])('are not made with: %s', async (options, message) => {
    const { caller } = await makeUser(test.db);
    const command = `client create x ${options.replace('EMAIL', caller.email)}`.trim();
    expect((await longhaul(command)).err).toMatch(message);
  });
});

it('rotates the keys that sign; what the one before has signed still holds', async () => {
  const person = await makePerson(test.db);
  const env = keysOfHome();
  let api = await startTestApi(test.url, env);
  const { port } = api;
  const oauth = new RawOauth(`http://127.0.0.1:${port}`);
  const tokens = () => oauth.tokens(person, { scope: 'openid vms:read account:read' });
  const kidOf = (idToken: string) => partOf(idToken, 0).kid;
  const rotate = async () => {
    expect(await ok('key rotate-signing')).toMatch(/within a minute/);
    // A replica looks once a minute, and when it starts.
    await api.close();
    api = await startTestApi(test.url, { ...env, PORT: port });
    return kidOf((await tokens()).id_token);
  };
  try {
    const first = await tokens();
    const second = await rotate();
    expect(second).not.toBe(kidOf(first.id_token));
    expect(await oauth.subjectOf(first.id_token)).toBe(person.userId);
    expect(await rotate()).not.toBe(second);
    expect(await oauth.subjectOf(first.id_token)).toBeUndefined();
    expect(await oauth.call(first.access_token)).toMatchObject({ status: 200 });
    expect(await oauth.refresh(first.refresh_token)).toMatchObject({ status: 200 });
    expect(await audited('cli key rotate-signing')).toMatchObject({ result: 'ok' });
  } finally {
    await api.close();
  }
});
