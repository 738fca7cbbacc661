import { text } from 'node:stream/consumers';
import { PASSWORD_LENGTH, hashPassword, userOfAddress } from '@longhaul/access';
import { endLogins } from '@longhaul/oauth';
import type { AccountStanding } from '@longhaul/persistence';
import type { Command } from './commands.js';
import { ensureUser } from './first-vm.js';
import { UsageError } from './usage.js';

const EMAIL = /^[^\s@]{1,64}@[^\s@]{1,190}$/;

const stand = (standing: AccountStanding, said: string): Command => ({
  args: ['EMAIL'],
  async run(context, [email]) {
    const user = await userOf(context, email!);
    await context.change(`user ${standing}`, { email }, (tx) =>
      tx.user.update({ where: { id: user.id }, data: { standing } }),
    );
    console.log(`${email} ${said}`);
  },
});

export const userCommands: Record<string, Command> = {
  'user create': {
    args: ['EMAIL'],
    options: ['password-stdin', 'staff'],
    async run(context, [email], { staff = false, 'password-stdin': asks }) {
      if (!EMAIL.test(email!)) throw new UsageError(`Not an e-mail address: ${email}`);
      if (await findUser(context, email!)) throw new UsageError(`There is a user ${email} already.`);
      const passwordHash = asks ? await passwordFromStdin() : undefined;
      await context.change('user create', { email, staff }, async (tx) => {
        const { userId } = await ensureUser(tx, email!, email!);
        await tx.user.update({ where: { id: userId }, data: { staff, passwordHash } });
      });
      console.log(`User ${email} made. A token: longhaul token create --user ${email}`);
    },
  },

  'user password': {
    args: ['EMAIL'],
    options: ['password-stdin'],
    async run(context, [email]) {
      const { id } = await userOf(context, email!);
      const passwordHash = await passwordFromStdin();
      const ended = await context.change('user password', { email }, async (tx) => {
        await tx.user.update({ where: { id }, data: { passwordHash } });
        return endLogins(tx, id);
      });
      console.log(
        `${email} logs in with it from now on. They are logged out everywhere, and ${ended} grants to OAuth clients are over. ` +
          'Developer tokens and clients of machines hold.',
      );
    },
  },

  'user list': {
    args: [],
    async run({ db }) {
      for (const { email, staff, standing, passwordHash } of await db.user.findMany({
        orderBy: { email: 'asc' },
      })) {
        const notes = [staff && 'staff', passwordHash && 'password'].filter(Boolean).join(', ');
        console.log([email.padEnd(40), standing.padEnd(9), notes].join('  ').trimEnd());
      }
    },
  },

  'user suspend': stand('suspended', 'is suspended: nothing works for them from now on.'),
  'user flag': stand('flagged', 'is flagged: they may look, but change nothing.'),
  'user restore': stand('good', 'may work as before.'),
};

type Context = Parameters<Command['run']>[0];

async function findUser({ db }: Pick<Context, 'db'>, email: string) {
  const found = await userOfAddress(email, db);
  return found && db.user.findUnique({ where: { id: found.id } });
}

export async function userOf(context: Context, email: string) {
  const user = await findUser(context, email);
  if (!user) throw new UsageError(`There is no user ${email}. Make one: longhaul user create ${email}`);
  return user;
}

/** Never an argument, which others on the machine could read. */
async function passwordFromStdin(): Promise<string> {
  if (process.stdin.isTTY) console.error('Type the password, then Enter and Ctrl-D:');
  const password = (await text(process.stdin)).replace(/\r?\n$/, '');
  const { min, max } = PASSWORD_LENGTH;
  if (password.length < min || password.length > max)
    throw new UsageError(`A password has ${min} to ${max} characters.`);
  return hashPassword(password);
}
