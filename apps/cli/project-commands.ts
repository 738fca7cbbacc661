import { lockMembers, projectLimits, setMember, usedOf, type ProjectLimits } from '@longhaul/access';
import { ProjectRole, SYSTEM_ID } from '@longhaul/persistence';
import type { Command, Options } from './commands.js';
import type { Context } from './context.js';
import { UsageError } from './usage.js';
import { userOf } from './user-commands.js';

/** Options of `project quota`, and the limit that each of them is about. */
const QUOTAS = [
  ['vms', 'vmLimit'],
  ['cpus', 'cpuLimit'],
  ['memory-mb', 'memoryLimitMb'],
  ['disk-gb', 'diskLimitGb'],
  ['jobs', 'liveJobLimit'],
  ['concurrency', 'concurrency'],
] as const;

export const projectCommands: Record<string, Command> = {
  'project list': {
    args: [],
    async run({ db }) {
      const members = { include: { user: true }, orderBy: { role: 'asc' } } as const;
      const projects = await db.project.findMany({
        where: { id: { not: SYSTEM_ID } },
        orderBy: { name: 'asc' },
        include: { members },
      });
      for (const project of projects) {
        console.log(`${project.name.padEnd(40)}  confirmations: ${project.confirmation}`);
        for (const { user, role } of project.members) console.log(`  ${role.padEnd(6)}  ${user.email}`);
      }
    },
  },

  'project confirm': {
    args: ['NAME'],
    options: ['person'],
    async run(context, [name], { person }) {
      const { id } = await projectOf(context, name!);
      const confirmation = person ? 'person' : 'any';
      await context.change('project confirm', { name, confirmation }, (tx) =>
        tx.project.update({ where: { id }, data: { confirmation } }),
      );
      console.log(
        person
          ? `In ${name} only a person may confirm, asked by the client.`
          : `In ${name} the phrase is enough to confirm.`,
      );
    },
  },

  'project quota': {
    args: ['NAME'],
    options: QUOTAS.map(([option]) => option),
    async run(context, [name], options) {
      let project = await projectOf(context, name!);
      const limits = limitsIn(options);
      if (Object.keys(limits).length > 0) {
        const change = { where: { id: project.id }, data: limits };
        project = await context.change('project quota', { name, ...limits }, (tx) =>
          tx.project.update(change),
        );
      }
      const used = await usedOf(project.id, context.db);
      for (const [option, limit] of QUOTAS)
        console.log(`${option.padEnd(12)}  ${used[limit]} of ${project[limit]}`);
    },
  },

  'project add-member': {
    args: ['NAME', 'EMAIL'],
    options: ['role'],
    run: (context, [name, email], { role = 'member' }) => put(context, 'add-member', name!, email!, role),
  },

  'project role': {
    args: ['NAME', 'EMAIL', 'ROLE'],
    run: (context, [name, email, role]) => put(context, 'role', name!, email!, role!),
  },

  'project remove-member': {
    args: ['NAME', 'EMAIL'],
    async run(context, [name, email]) {
      const { projectId, userId } = await membershipOf(context, name!, email!);
      await context.change('project remove-member', { name, email }, async (tx) => {
        await lockMembers(projectId, tx);
        const member = await tx.projectMember.findFirst({ where: { projectId, userId } });
        if (!member) throw new UsageError(`${email} is no member of ${name}.`);
        await setMember(projectId, userId, undefined, tx);
      });
      console.log(`${email} is no member of ${name} any more.`);
    },
  },
};

function limitsIn(options: Options): Partial<ProjectLimits> {
  const limits: Partial<ProjectLimits> = {};
  for (const [option, limit] of QUOTAS) {
    const text = options[option];
    if (text === undefined) continue;
    const schema = projectLimits.shape[limit];
    const { data } = schema.safeParse(/^\d{1,10}$/.test(text) ? Number(text) : undefined);
    if (data === undefined)
      throw new UsageError(
        `--${option} takes a whole number from ${schema.minValue} to ${schema.maxValue}, not ${text}.`,
      );
    limits[limit] = data;
  }
  return limits;
}

async function put(
  context: Context,
  verb: string,
  name: string,
  email: string,
  wanted: string,
): Promise<void> {
  const role = Object.values(ProjectRole).find((one) => one === wanted);
  if (!role) throw new UsageError(`Roles are ${Object.values(ProjectRole).join(', ')}.`);
  const { projectId, userId } = await membershipOf(context, name, email);
  await context.change(`project ${verb}`, { name, email, role }, async (tx) => {
    await lockMembers(projectId, tx);
    await setMember(projectId, userId, role, tx);
  });
  console.log(`${email} is ${role} of ${name}.`);
}

async function membershipOf(context: Context, name: string, email: string) {
  const [{ id: projectId }, { id: userId }] = [await projectOf(context, name), await userOf(context, email)];
  return { projectId, userId };
}

async function projectOf({ db }: Context, name: string) {
  const project = await db.project.findUnique({ where: { name } });
  if (!project) throw new UsageError(`There is no project ${name}.`);
  return project;
}
