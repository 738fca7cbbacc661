import { newId, type Vm } from '@longhaul/persistence';
import { hostname as hostnameArgument } from '@longhaul/toolsets/vms/hostname';
import { vmCreate } from '@longhaul/toolsets/vms/vm-create.job';
import { vmPower } from '@longhaul/toolsets/vms/vm-power.job';
import type { Command } from './commands.js';
import type { Context } from './context.js';
import { errorOf, ownerOf, runJob } from './first-vm.js';
import { UsageError } from './usage.js';
import { VM_DEFAULTS } from './vms.js';

export const vmCommands: Record<string, Command> = {
  'vm list': {
    args: [],
    async run({ db }) {
      for (const vm of await db.vm.findMany({ orderBy: { hostname: 'asc' } })) {
        const exec = vm.execSuspended ? 'exec suspended' : vm.execEnabled ? 'exec' : '-';
        console.log([vm.id, vm.hostname.padEnd(20), vm.powerState.padEnd(10), exec].join('  '));
      }
    },
  },

  'vm create': {
    args: ['HOSTNAME'],
    options: ['user', 'exec'],
    async run(context, [hostname], options) {
      requireHostname(hostname!);
      const { userId, projectId } = await ownerOf(context, options.user);
      await requireFree(context, projectId, hostname!);
      const execEnabled = options.exec ?? false;
      const data = { id: newId(), projectId, hostname: hostname!, execEnabled, ...VM_DEFAULTS };
      const vm = await context.db.vm.create({ data });
      await finish(context, vm, userId, 'create');
    },
  },

  'vm start': { args: ['VM'], run: (context, [vm]) => power(context, vm!, 'start') },
  'vm stop': { args: ['VM'], run: (context, [vm]) => power(context, vm!, 'stop') },
  'vm reset': { args: ['VM'], run: (context, [vm]) => power(context, vm!, 'reset') },
};

export function requireHostname(name: string): void {
  if (!hostnameArgument.safeParse(name).success) throw new UsageError(`Not a hostname: ${name}`);
}

export async function requireFree({ db }: Context, projectId: string, hostname: string): Promise<void> {
  if (await db.vm.findFirst({ where: { projectId, hostname } }))
    throw new UsageError(`The project has a VM ${hostname} already.`);
}

async function power(context: Context, reference: string, action: 'start' | 'stop' | 'reset'): Promise<void> {
  const vm = await findVm(context, reference);
  const userId = vm.project.members[0]?.userId;
  if (!userId) throw new UsageError(`Nobody is a member of the project of ${reference}.`);
  await finish(context, vm, userId, action);
}

/** By id or hostname, which must be that of one VM only. */
export async function findVm({ db }: Context, reference: string) {
  const all = await db.vm.findMany({ include: { project: { include: { members: true } } } });
  const matches = all.filter((vm) => vm.id === reference || vm.hostname === reference);
  const [vm] = matches;
  if (!vm) throw new UsageError(`There is no VM ${reference}.`);
  if (matches.length > 1) throw new UsageError(`Several VMs are called ${reference}; give the id.`);
  return vm;
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
