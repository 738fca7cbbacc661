import { createToken, type Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { Transaction } from '@longhaul/persistence';
import { z } from 'zod';
import { showToken, tokenFields } from '../rest/credentials.js';
import {
  found,
  id,
  inPath,
  notFound,
  page,
  pageOf,
  paged,
  scopes,
  text,
  time,
  toPage,
} from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';
import { restrictionOf, type Restriction } from '../rest/staff.js';

/** Of one account that hold; more would be a leak rather than a use. */
const TOKENS_MAX = 200;

const list = defineRoute({
  method: 'GET',
  path: '/account/v1/tokens',
  summary: 'List your developer tokens, newest first',
  needs: 'account:read',
  query: z.strictObject(page),
  answer: pageOf(tokenFields),
  async handle({ db, query, caller: { userId } }) {
    const rows = await db.token.findMany(paged({ userId }, query));
    return toPage(rows, query, showToken);
  },
});

const ids = z.array(id).max(100).optional();

const create = defineRoute({
  method: 'POST',
  path: '/account/v1/tokens',
  summary: 'Make a developer token, which is shown this once',
  description:
    'It has at most the scopes, projects, VMs and time of the token that asks for it, and inherits its restrictions ' +
    'where none are given.',
  needs: 'projects:write',
  body: z.strictObject({
    name: text(128).optional(),
    scopes: scopes.min(1).max(50),
    project_ids: ids.describe('Restrict it to these projects of yours'),
    vm_ids: ids.describe('Restrict it to these VMs of yours'),
    expires_at: time.optional(),
  }),
  answer: tokenFields.extend({ token: z.string().describe('Nobody can show it again') }),
  status: 201,
  async handle({ db, body, caller }) {
    const own = await restrictionOf(caller, db);
    const lacking = body.scopes.filter((scope) => !caller.scopes.includes(scope));
    if (lacking.length > 0) {
      throw new AppError('forbidden_scope', 'A token makes no token of more scopes than it has itself.', {
        required_scopes: lacking,
      });
    }
    const restriction = await narrowed(own, body, caller, db);
    await requireRoom(caller, db);
    const options = { name: body.name, ...restriction };
    const { id, token } = await createToken(db, caller.userId, [...new Set(body.scopes)], options);
    return { ...showToken(await db.token.findUniqueOrThrow({ where: { id } })), token };
  },
});

const revoke = defineRoute({
  method: 'DELETE',
  path: '/account/v1/tokens/{id}',
  summary: 'Revoke one of your tokens, in force on its next request',
  description: 'A token may revoke itself. Of one that was revoked before it changes nothing.',
  needs: 'projects:write',
  takesBack: true,
  params: inPath,
  answer: tokenFields,
  async handle({ db, params, caller }) {
    const own = { ...params, userId: caller.userId };
    await db.token.updateMany({ where: { ...own, revokedAt: null }, data: { revokedAt: new Date() } });
    return showToken(found(await db.token.findFirst({ where: own })));
  },
});

interface Wanted {
  project_ids?: string[];
  vm_ids?: string[];
  expires_at?: string;
}

/** What is asked for, within what the asking token may: a list that it leaves out is that of the asking token. */
async function narrowed(own: Restriction, wanted: Wanted, caller: Caller, db: Transaction) {
  const projectIds = wanted.project_ids?.length ? wanted.project_ids : own.projectIds;
  const vmIds = wanted.vm_ids?.length ? wanted.vm_ids : own.vmIds;
  const visible = {
    projectId: { in: caller.projectIds },
    id: { in: vmIds.filter((id) => caller.vmIds?.includes(id) ?? true) },
  };
  // What others have is no more to be told from what does not exist here than elsewhere.
  if (!projectIds.every((id) => caller.projectIds.includes(id) || own.projectIds.includes(id)))
    throw notFound();
  if (wanted.vm_ids?.length && (await db.vm.count({ where: visible })) < new Set(vmIds).size)
    throw notFound();
  const expiresAt =
    wanted.expires_at === undefined ? (own.expiresAt ?? undefined) : new Date(wanted.expires_at);
  if (expiresAt && expiresAt <= caller.seenAt)
    throw new AppError('invalid_arguments', 'expires_at: lies in the past.');
  if (own.expiresAt && expiresAt! > own.expiresAt) {
    const at = own.expiresAt.toISOString();
    throw new AppError(
      'invalid_arguments',
      `expires_at: this token ends at ${at}, and so must what it makes.`,
    );
  }
  return { projectIds: [...new Set(projectIds)], vmIds: [...new Set(vmIds)], expiresAt };
}

async function requireRoom({ userId, seenAt }: Caller, db: Transaction): Promise<void> {
  // Of two that are made at once each sees the other.
  await db.$queryRaw`SELECT FROM users WHERE id = ${userId}::uuid FOR UPDATE`;
  const holding = { userId, revokedAt: null, OR: [{ expiresAt: null }, { expiresAt: { gt: seenAt } }] };
  if ((await db.token.count({ where: holding })) < TOKENS_MAX) return;
  throw new AppError('conflict', `You have ${TOKENS_MAX} tokens, which is the most. Revoke some.`);
}

export const tokenRoutes = [list, create, revoke];
