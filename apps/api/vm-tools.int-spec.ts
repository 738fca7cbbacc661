import { newId, type Vm } from '@longhaul/persistence';
import { makeHost, makeUser, makeVm } from '../../test/support/database.js';
import { NO_RATES, mcpUrl, testApi } from '../../test/support/mcp.js';
import { callTool, rpc, type ToolAnswer } from '../../test/support/tasks.js';
import { TOOL_ARGUMENTS } from '../../test/support/tool-arguments.js';

// The tools that change VMs, as far as no machine is needed: what they refuse, what they submit, what they tell.

const PUBLIC_KEY = TOOL_ARGUMENTS.public_key as string;

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

const jobOf = ({ job_id: id }: ToolAnswer) => test.db.job.findUniqueOrThrow({ where: { id } });
const jobsNow = () => test.db.job.count();
const runCommand = () => call('start_vm_command', { vm_id: vm.id, command: 'sleep 1000' });

describe('a confirmation', () => {
  const TOOLS: [string, object, () => string][] = [
    ['rename_vm', { hostname: 'other' }, () => `RENAME ${vm.id} TO other`],
    ['reinstall_vm', { image: 'busybox' }, () => `REINSTALL ${vm.id} TO TEMPLATE busybox`],
    ['delete_vm', {}, () => `DELETE ${vm.id}`],
  ];

  it.each(TOOLS)('of %s is its phrase to the letter', async (name, args, phraseOf) => {
    const phrase = phraseOf();
    const wrong = [
      phrase.slice(0, -1),
      `${phrase} `,
      ` ${phrase}`,
      phrase.toLowerCase(),
      phrase.replace(' ', '  '),
      phrase.replace(vm.id, vm.id.toUpperCase()),
      phrase.replace(vm.id, vm.hostname),
      phrase.replace(vm.id, newId()),
      '',
    ];
    for (const confirmation of wrong.filter((each) => each !== phrase)) {
      expect(await call(name, { vm_id: vm.id, ...args, confirmation })).toMatchObject({
        code: 'confirmation_required',
        details: { phrase },
      });
    }
    expect(await jobsNow()).toBe(await test.db.job.count({ where: { vmId: { not: vm.id } } }));
    // As a task, for which nobody waits.
    const right = { name, arguments: { vm_id: vm.id, ...args, confirmation: phrase } };
    expect(await rpc(url(), user.token, 'tools/call', right)).toMatchObject({
      result: { resultType: 'task' },
    });
  });

  it('takes the id alone, no hostname and no prefix', async () => {
    for (const vm_id of [vm.hostname, vm.id.slice(0, 8)]) {
      const answer = await call('delete_vm', { vm_id, confirmation: `DELETE ${vm_id}` });
      expect(answer.code).toBe('invalid_arguments');
    }
  });
});

describe('bounds', () => {
  it.each<[string, object]>([
    ['power_vm', { action: 'explode' }],
    ['power_vm', { action: 'shutdown', timeout_seconds: 0 }],
    ['power_vm', { action: 'shutdown', timeout_seconds: 601 }],
    ['rename_vm', { hostname: 'Upper' }],
    ['rename_vm', { hostname: '-a' }],
    ['rename_vm', { hostname: 'a'.repeat(64) }],
    ['rename_vm', { hostname: 'a.b' }],
    ['rename_vm', { hostname: 'a\nb' }],
    ['reinstall_vm', { image: '' }],
    ['reinstall_vm', { image: 'busybox', ssh_public_key: 'ssh-rsa AAAA' }],
    ['reinstall_vm', { image: 'busybox', ssh_public_key: `${PUBLIC_KEY}\n${PUBLIC_KEY}` }],
    ['resize_vm', {}],
    ['resize_vm', { disk_gb: 9 }],
    ['resize_vm', { disk_gb: 16_385 }],
    ['resize_vm', { cpus: 0 }],
    ['resize_vm', { memory_mb: 255 }],
  ])('%s refuses %j', async (name, args) => {
    const before = await jobsNow();
    expect(await call(name, { vm_id: vm.id, ...args })).toMatchObject({ code: 'invalid_arguments' });
    expect(await jobsNow()).toBe(before);
  });

  it.each<[object, string]>([
    [{ hostname: 'a', cpus: 65 }, 'invalid_arguments'],
    [{ hostname: 'a', memory_mb: 100 }, 'invalid_arguments'],
    [{ hostname: 'a', disk_gb: 0 }, 'invalid_arguments'],
    [{ hostname: 'a', disk_gb: 9, image: 'default' }, 'invalid_arguments'],
    [{ hostname: 'a', image: '../etc' }, 'image_not_found'],
    [{ hostname: 'a', location: 'nowhere' }, 'host_unreachable'],
    [{ hostname: 'a', project_id: 'nobodys' }, 'not_found'],
    [{ hostname: 'a', ssh_key_id: 'none' }, 'ssh_key_not_found'],
    [{ hostname: 'a', cpus: 64 }, 'quota_exceeded'],
    [{ hostname: 'a', memory_mb: 131_072 }, 'quota_exceeded'],
    [{ hostname: 'a', disk_gb: 2048 }, 'quota_exceeded'],
  ])('create_vm refuses %j with %s', async (args, code) => {
    const before = [await jobsNow(), await test.db.vm.count()];
    expect(await call('create_vm', args)).toMatchObject({ code });
    expect([await jobsNow(), await test.db.vm.count()]).toEqual(before);
  });

  it('of what the VM is', async () => {
    expect(await call('resize_vm', { vm_id: vm.id, cpus: 2 })).toMatchObject({ code: 'vm_state_blocked' });
    await test.db.vm.update({ where: { id: vm.id }, data: { observed: { abilities: ['suspend'] } } });
    expect(await call('power_vm', { vm_id: vm.id, action: 'stop' })).toMatchObject({
      code: 'vm_state_blocked',
      details: { ability: 'power' },
    });
    expect(await call('get_vm', { vm_id: vm.id })).toMatchObject({ power_controls_supported: [] });
    expect(await call('reinstall_vm', reinstall())).toMatchObject({ code: 'vm_state_blocked' });
    expect(await call('resize_vm', { vm_id: vm.id, disk_gb: 20 })).toMatchObject({
      code: 'vm_state_blocked',
    });
  });

  it('of the names in a project', async () => {
    const other = await makeVm(test.db, user.caller);
    const args = { vm_id: vm.id, hostname: other.hostname };
    const confirmation = `RENAME ${vm.id} TO ${other.hostname}`;
    expect(await call('rename_vm', { ...args, confirmation })).toMatchObject({ code: 'conflict' });
    expect(await call('create_vm', { hostname: vm.hostname })).toMatchObject({ code: 'conflict' });
  });
});

const reinstall = (more: object = {}, image = 'busybox') => ({
  vm_id: vm.id,
  image,
  confirmation: `REINSTALL ${vm.id} TO TEMPLATE ${image}`,
  ...more,
});

describe('one at a time', () => {
  it('of two power actions the second is refused and names the first', async () => {
    const [one, two] = await Promise.all([
      call('power_vm', { vm_id: vm.id, action: 'reset' }),
      call('power_vm', { vm_id: vm.id, action: 'stop' }),
    ]);
    const [done, refused] = one.code ? [two, one] : [one, two];
    expect(done).toMatchObject({ status: 'queued' });
    expect(refused).toMatchObject({ code: 'vm_busy', details: { job_id: done.job_id } });
  });

  it.each([
    ['reinstall_vm', () => reinstall()],
    ['delete_vm', () => ({ vm_id: vm.id, confirmation: `DELETE ${vm.id}` })],
    ['resize_vm', () => ({ vm_id: vm.id, disk_gb: 20 })],
  ])('%s is refused while a command runs, unless it is forced, and keeps others out', async (name, args) => {
    const { command_id } = await runCommand();
    expect(await call(name, args())).toMatchObject({
      code: 'vm_command_in_progress',
      details: { job_id: command_id },
    });
    const forced = await call(name, { ...args(), force: true });
    expect(forced).toMatchObject({ status: 'queued' });
    expect(await test.db.job.findUniqueOrThrow({ where: { id: command_id as string } })).toMatchObject({
      state: 'cancelled',
    });
    expect(await runCommand()).toMatchObject({ code: 'vm_busy', details: { job_id: forced.job_id } });
  });

  it('a power action goes beside a command, which it may cut', async () => {
    await runCommand();
    expect(await call('power_vm', { vm_id: vm.id, action: 'stop' })).toMatchObject({ status: 'queued' });
  });
});

describe('SSH keys', () => {
  it('are registered once under a name, listed and removed by their owner alone', async () => {
    const added = await call('add_ssh_key', { name: 'laptop', public_key: ` ${PUBLIC_KEY}\n` });
    expect(added).toMatchObject({ name: 'laptop', public_key: PUBLIC_KEY });
    expect(await call('add_ssh_key', { name: 'laptop', public_key: PUBLIC_KEY })).toEqual(added);
    expect(await call('add_ssh_key', { name: 'again', public_key: PUBLIC_KEY })).toMatchObject({
      code: 'conflict',
    });
    expect(await call('list_ssh_keys')).toEqual({ ssh_keys: [added] });
    const stranger = await makeUser(test.db);
    expect(await call('list_ssh_keys', {}, stranger.token)).toEqual({ ssh_keys: [] });
    const { ssh_key_id } = added;
    const gone = { code: 'ssh_key_not_found' };
    expect(await call('remove_ssh_key', { ssh_key_id }, stranger.token)).toMatchObject(gone);
    expect(await call('remove_ssh_key', { ssh_key_id })).toEqual({ ssh_key_id, removed: true });
    expect(await call('remove_ssh_key', { ssh_key_id })).toMatchObject(gone);
  });

  it('reach a reinstallation by id or as they are, not both', async () => {
    const { ssh_key_id } = await call('add_ssh_key', { name: 'laptop', public_key: PUBLIC_KEY });
    const both = reinstall({ ssh_key_id, ssh_public_key: PUBLIC_KEY });
    expect(await call('reinstall_vm', both)).toMatchObject({ code: 'invalid_arguments' });
    expect(await call('reinstall_vm', reinstall({ ssh_key_id: newId() }))).toMatchObject({
      code: 'ssh_key_not_found',
    });
    const job = await jobOf(await call('reinstall_vm', reinstall({ ssh_key_id })));
    expect(job.payload).toEqual({ image: 'busybox', ssh_public_key: PUBLIC_KEY });
  });
});

describe('create_vm', () => {
  it('makes row and job together, once for a key', async () => {
    const args = {
      hostname: 'web',
      image: 'busybox',
      cpus: 2,
      memory_mb: 512,
      disk_gb: 3,
      idempotency_key: 'k',
    };
    const racing = await Promise.all([call('create_vm', args), call('create_vm', args)]);
    expect(racing[0]).toEqual(racing[1]);
    const made = racing[0];
    expect(await call('get_vm', { vm_id: made.vm_id })).toMatchObject({
      hostname: 'web',
      image: 'busybox',
      plan: '2 vCPU, 512 MB, 3 GB',
      location: 'local',
      mcp_exec_enabled: false,
    });
    expect(await call('create_vm', { ...args, cpus: 1 })).toMatchObject({ code: 'idempotency_key_reused' });
    expect(await test.db.vm.count({ where: { projectId: vm.projectId } })).toBe(2);
  });

  it('keeps to the number of VMs of the project, whoever comes first', async () => {
    await test.db.project.update({ where: { id: vm.projectId }, data: { vmLimit: 3 } });
    const answers = await Promise.all(
      ['a', 'b', 'c', 'd'].map((hostname) => call('create_vm', { hostname, image: 'busybox', disk_gb: 1 })),
    );
    expect(answers.filter(({ code }) => code === undefined)).toHaveLength(2);
    expect(answers.filter(({ code }) => code === 'quota_exceeded')).toHaveLength(2);
  });

  it('is nothing for a token that is restricted to VMs, nor for a viewer', async () => {
    const { userId, tokenId } = user.caller;
    await test.db.token.update({ where: { id: tokenId }, data: { vmIds: [vm.id] } });
    expect(await call('create_vm', { hostname: 'a' })).toMatchObject({ code: 'forbidden_role' });
    await test.db.token.update({ where: { id: tokenId }, data: { vmIds: [] } });
    await test.db.projectMember.updateMany({ where: { userId }, data: { role: 'viewer' } });
    expect(await call('create_vm', { hostname: 'a' })).toMatchObject({ code: 'forbidden_role' });
  });
});

it('a resize beyond the quota is refused', async () => {
  await test.db.project.update({ where: { id: vm.projectId }, data: { diskLimitGb: 15 } });
  expect(await call('resize_vm', { vm_id: vm.id, disk_gb: 16 })).toMatchObject({
    code: 'quota_exceeded',
    details: { resource: 'diskGb', limit: 15, used: 10 },
  });
  expect(await call('resize_vm', { vm_id: vm.id, disk_gb: 15 })).toMatchObject({ status: 'queued' });
});

it('shows the images of the catalogue', async () => {
  const { images } = await call('list_images');
  expect(images).toContainEqual(expect.objectContaining({ image: 'busybox', min_disk_gb: 1 }));
  expect(images).toContainEqual(expect.objectContaining({ aliases: ['default'] }));
});
