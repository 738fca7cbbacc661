import { createMachineClient, ofMachines, revokeGrant } from '@longhaul/oauth';
import type { Command } from './commands.js';
import { restrictionOf, scopesOf } from './token-commands.js';
import { UsageError } from './usage.js';
import { userOf } from './user-commands.js';

/** OAuth clients of machines; those of people come by themselves. */
export const clientCommands: Record<string, Command> = {
  'client create': {
    args: ['NAME'],
    options: ['user', 'scopes', 'project', 'vm'],
    async run(context, [name], options) {
      if (!options.user) throw new UsageError('Say in whose name it acts: --user EMAIL');
      const { id: userId } = await userOf(context, options.user);
      const { projectIds, vmIds } = await restrictionOf(context, userId, options);
      const scopes = scopesOf(options.scopes);
      const asked = { name, user: options.user, scopes, projectIds, vmIds };
      const { clientId, clientSecret } = await context.change('client create', asked, (tx) =>
        createMachineClient(tx, name!, { userId, scopes, projectIds, vmIds }),
      );
      console.log(`client_id      ${clientId}\nclient_secret  ${clientSecret}\n(it is not shown again)`);
    },
  },

  'client list': {
    args: [],
    options: ['user'],
    async run(context, _args, { user }) {
      const userId = user === undefined ? undefined : (await userOf(context, user)).id;
      const clients = await context.db.oauthGrant.findMany({
        where: { userId, ...ofMachines(context.db) },
        include: { user: true },
        orderBy: [{ user: { email: 'asc' } }, { createdAt: 'asc' }],
      });
      for (const { id, user, clientName, scopes, projectIds, vmIds, revokedAt } of clients) {
        const only = [...projectIds, ...vmIds].join(',') || 'everything';
        const state = revokedAt ? `revoked ${revokedAt.toISOString().slice(0, 10)}` : 'holds';
        console.log([id, user.email, clientName, scopes.join(','), only, state].join('  '));
      }
    },
  },

  'client revoke': {
    args: ['ID'],
    async run(context, [id]) {
      const isRevoked = await context.change('client revoke', { id }, async (tx) => {
        const client = await tx.oauthGrant.findFirst({ where: { id, ...ofMachines(tx) } });
        return client !== null && revokeGrant(tx, client.id);
      });
      if (!isRevoked) throw new UsageError('There is no such client, or it was revoked before.');
      console.log('Revoked. It and its tokens are refused from now on.');
    },
  },
};
