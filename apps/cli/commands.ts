import { parseArgs } from 'node:util';
import { createToken, SCOPES } from '@longhaul/access';
import { newId, parseId, type Vm } from '@longhaul/persistence';
import { vmCreate } from '@longhaul/toolsets/vms/vm-create.job';
import { vmPower } from '@longhaul/toolsets/vms/vm-power.job';
import { openContext, type Context } from './context.js';
import { openDatabase } from './database.js';
import { fromEnvironment } from './environment.js';
import { ensureFirstUser, ensureUser, errorOf, FIRST_USER, runJob } from './first-vm.js';
import { findRunning, openHome } from './home.js';
import { USAGE, UsageError } from './usage.js';
import { VM_DEFAULTS } from './vms.js';

/** Runs one of the commands that work on the database of a Longhaul that is up (or that DATABASE_URL names). */
export async function runCommand(argv: string[]): Promise<void> {
  const { values, positionals } = parse(argv);
  const [noun, verb, argument = '', ...rest] = positionals;
  const command = COMMANDS[`${noun} ${verb}`];
  const needsArgument =
    command !== undefined && !/^(token create|project list|vm list)$/.test(`${noun} ${verb}`);
  if (!command || rest.length > 0 || needsArgument !== Boolean(argument)) throw new UsageError(USAGE);

  const home = openHome();
  if (!fromEnvironment('DATABASE_URL') && !findRunning(home))
    throw new UsageError('Longhaul is not up. Start it with: npm start');
  const { env } = await openDatabase(home, console.error);
  const context = await openContext({ ...process.env, ...env });
  try {
    await command(context, argument, values);
  } finally {
    await context.close();
  }
}

interface Options {
  user?: string;
  exec?: boolean;
  person?: boolean;
}

const COMMANDS: Record<string, (context: Context, argument: string, options: Options) => Promise<void>> = {
  'user create': async (context, email) => {
    if (!/^[^\s@]{1,64}@[^\s@]{1,190}$/.test(email)) throw new UsageError(`Not an e-mail address: ${email}`);
    if (await context.db.user.findUnique({ where: { email } }))
      throw new UsageError(`There is a user ${email} already.`);
    await ensureUser(context, email, email);
    console.log(`User ${email} made. A token: longhaul token create --user ${email}`);
  },

  'token create': async (context, _argument, options) => {
    const { userId } = await ownerOf(context, options);
    const { id, token } = await context.db.$transaction((tx) => createToken(tx, userId, SCOPES));
    console.log(`${token}\n(id ${id}; it is not shown again)`);
  },

  'token revoke': async ({ db, access }, idOrToken) => {
    const id = idOrToken.startsWith('lh_')
      ? (await access.authenticate(idOrToken))?.tokenId
      : parseId(idOrToken);
    const revocation = { where: { id, revokedAt: null }, data: { revokedAt: new Date() } };
    const { count } = id ? await db.token.updateMany(revocation) : { count: 0 };
    if (count === 0) throw new UsageError('There is no such token, or it was revoked before.');
    console.log('Revoked. It is refused from now on.');
  },

  'project list': async ({ db }) => {
    for (const { name, confirmation } of await db.project.findMany({ orderBy: { name: 'asc' } })) {
      console.log(`${name.padEnd(40)}  confirmations: ${confirmation}`);
    }
  },

  'project confirm': async ({ db }, name, { person }) => {
    const confirmation = person ? 'person' : 'any';
    const { count } = await db.project.updateMany({ where: { name }, data: { confirmation } });
    if (count === 0) throw new UsageError(`There is no project ${name}.`);
    console.log(
      person
        ? `In ${name} only a person may confirm, asked by the client.`
        : `In ${name} the phrase is enough to confirm.`,
    );
  },

  'vm list': async ({ db }) => {
    for (const vm of await db.vm.findMany({ orderBy: { hostname: 'asc' } })) {
      console.log(
        [vm.id, vm.hostname.padEnd(20), vm.powerState.padEnd(10), vm.execEnabled ? 'exec' : '-'].join('  '),
      );
    }
  },

  'vm create': async (context, hostname, options) => {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(hostname))
      throw new UsageError(`Not a hostname: ${hostname}`);
    const { userId, projectId } = await ownerOf(context, options);
    if (await context.db.vm.findFirst({ where: { projectId, hostname } })) {
      throw new UsageError(`The project has a VM ${hostname} already.`);
    }
    const execEnabled = options.exec ?? false;
    const data = { id: newId(), projectId, hostname, execEnabled, ...VM_DEFAULTS };
    const vm = await context.db.vm.create({ data });
    await finish(context, vm, userId, 'create');
  },

  'vm start': (context, reference) => power(context, reference, 'start'),
  'vm stop': (context, reference) => power(context, reference, 'stop'),
  'vm reset': (context, reference) => power(context, reference, 'reset'),
};

async function power(context: Context, reference: string, action: 'start' | 'stop' | 'reset'): Promise<void> {
  const all = await context.db.vm.findMany({ include: { project: { include: { members: true } } } });
  const matches = all.filter((vm) => vm.id === reference || vm.hostname === reference);
  const [vm] = matches;
  const userId = vm?.project.members[0]?.userId;
  if (!vm || !userId) throw new UsageError(`There is no VM ${reference}.`);
  if (matches.length > 1) throw new UsageError(`Several VMs are called ${reference}; give the id.`);
  await finish(context, vm, userId, action);
}

async function finish(
  context: Context,
  vm: Vm,
  userId: string,
  action: 'create' | 'start' | 'stop' | 'reset',
): Promise<void> {
  const job =
    action === 'create'
      ? await runJob(context, vm, userId, vmCreate, {})
      : await runJob(context, vm, userId, vmPower, { action });
  if (job.state !== 'succeeded') throw new UsageError(`Job ${job.id} is ${job.state}: ${errorOf(job)}`);
  console.log(`${vm.hostname} (${vm.id}): ${action} done`);
}

async function ownerOf(context: Context, { user = FIRST_USER }: Options) {
  if (user === FIRST_USER) return ensureFirstUser(context);
  const found = await context.db.user.findUnique({ where: { email: user }, include: { projects: true } });
  const projectId = found?.projects[0]?.projectId;
  if (!found || !projectId)
    throw new UsageError(`There is no user ${user}. Make one: longhaul user create ${user}`);
  return { userId: found.id, projectId };
}

function parse(argv: string[]) {
  try {
    const options = {
      user: { type: 'string' },
      exec: { type: 'boolean' },
      person: { type: 'boolean' },
    } as const;
    return parseArgs({ args: argv, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${USAGE}`);
  }
}
