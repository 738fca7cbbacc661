import { SCOPES, createToken, type Scope } from '@longhaul/access';
import { parseId } from '@longhaul/persistence';
import type { Command, Options } from './commands.js';
import type { Context } from './context.js';
import { ownerOf } from './first-vm.js';
import { UsageError } from './usage.js';
import { userOf } from './user-commands.js';

const UNIT_MS = { h: 3_600_000, d: 86_400_000 } as const;

export const tokenCommands: Record<string, Command> = {
  'token create': {
    args: [],
    options: ['user', 'name', 'scopes', 'project', 'vm', 'expires'],
    async run(context, _args, options) {
      const { userId } = await ownerOf(context, options.user);
      const restriction = await restrictionOf(context, userId, options);
      const scopes = scopesOf(options.scopes);
      const asked = { user: options.user, scopes, ...restriction };
      const { id, token } = await context.change('token create', asked, (tx) =>
        createToken(tx, userId, scopes, restriction),
      );
      console.log(`${token}\n(id ${id}; it is not shown again)`);
    },
  },

  'token list': {
    args: [],
    options: ['user'],
    async run(context, _args, { user }) {
      const userId = user === undefined ? undefined : (await userOf(context, user)).id;
      const tokens = await context.db.token.findMany({
        where: { userId },
        include: { user: true },
        orderBy: [{ user: { email: 'asc' } }, { createdAt: 'asc' }],
      });
      for (const { id, user, hint, name, scopes, projectIds, vmIds, ...token } of tokens) {
        const isWhole = projectIds.length + vmIds.length === 0;
        const day = (time: Date | null) => time?.toISOString().slice(0, 10) ?? 'never';
        console.log(
          [
            id,
            user.email,
            `${hint}…`,
            name ?? '-',
            scopes.length === SCOPES.length ? 'all scopes' : scopes.join(','),
            isWhole ? 'everything' : [...projectIds, ...vmIds].join(','),
            token.revokedAt ? `revoked ${day(token.revokedAt)}` : `expires ${day(token.expiresAt)}`,
            `used ${day(token.lastUsedAt)}`,
          ].join('  '),
        );
      }
    },
  },

  'token revoke': {
    args: ['ID|TOKEN'],
    async run(context, [idOrToken]) {
      const id = idOrToken!.startsWith('lh_')
        ? (await context.access.authenticate(idOrToken!))?.tokenId
        : parseId(idOrToken!);
      const revocation = { where: { id, revokedAt: null }, data: { revokedAt: new Date() } };
      const count = id
        ? (await context.change('token revoke', { id }, (tx) => tx.token.updateMany(revocation))).count
        : 0;
      if (count === 0) throw new UsageError('There is no such token, or it was revoked before.');
      console.log('Revoked. It is refused from now on.');
    },
  },
};

export function scopesOf(list: string | undefined): readonly Scope[] {
  if (list === undefined) return SCOPES;
  const names = list.split(',').map((name) => name.trim());
  const scopes = SCOPES.filter((scope) => names.includes(scope));
  if (scopes.length < new Set(names).size) throw new UsageError(`Scopes are ${SCOPES.join(', ')}.`);
  return scopes;
}

/** Projects and VMs by id or name, of those that the user has. */
export async function restrictionOf(
  { db }: Context,
  userId: string,
  { name, project = [], vm = [], expires }: Options,
) {
  const projects = await db.project.findMany({ where: { members: { some: { userId } } } });
  const vms =
    vm.length === 0
      ? []
      : await db.vm.findMany({ where: { projectId: { in: projects.map(({ id }) => id) } } });
  return {
    name,
    projectIds: project.map((wanted) =>
      only(
        'project',
        wanted,
        projects.map(({ id, name }) => [id, name]),
      ),
    ),
    vmIds: vm.map((wanted) =>
      only(
        'VM',
        wanted,
        vms.map(({ id, hostname }) => [id, hostname]),
      ),
    ),
    expiresAt: expires === undefined ? undefined : timeOf(expires, await db.now()),
  };
}

function only(what: string, wanted: string, all: [id: string, name: string][]): string {
  const [match, ...more] = all.filter(([id, name]) => id === wanted || name === wanted);
  if (!match) throw new UsageError(`The user has no ${what} ${wanted}.`);
  if (more.length > 0) throw new UsageError(`Several have the name ${wanted}; give the id.`);
  return match[0];
}

/** `30d`, `12h`, or a date. */
function timeOf(text: string, now: Date): Date {
  const [, count, unit] = /^(\d{1,5})([hd])$/.exec(text) ?? [];
  const time = count ? new Date(now.getTime() + Number(count) * UNIT_MS[unit as 'h' | 'd']) : new Date(text);
  if (Number.isNaN(time.getTime()) || time <= now)
    throw new UsageError(`--expires takes 30d, 12h or a date to come, not ${text}.`);
  return time;
}
