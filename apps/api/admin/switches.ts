import { REASON_MAX, SWITCHES, listSwitches, setSwitch, type SwitchName } from '@longhaul/access';
import type { KillSwitch } from '@longhaul/persistence';
import { z } from 'zod';
import { shown, text, time } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const name = z.enum(Object.keys(SWITCHES) as [SwitchName, ...SwitchName[]]);

const killSwitch = z.object({
  name: z.string(),
  guards: z.string(),
  engaged: z.boolean().describe('Whether what it guards is forbidden now'),
  reason: z.string().nullable().describe('Everybody who is refused reads it'),
  actor: z.string().describe('Who set it last; empty: nobody ever has'),
  changed_at: time,
});

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/switches',
  summary: 'List the kill switches',
  needs: 'staff',
  answer: z.object({ items: z.array(killSwitch) }),
  async handle({ db }) {
    return { items: (await listSwitches(db)).map(toAnswer) };
  },
});

const set = defineRoute({
  method: 'PUT',
  path: '/admin/v1/switches/{name}',
  summary: 'Forbid to everybody what a switch guards, or allow it again',
  description: 'In force on every replica with its next request. What is below /admin and /account goes on.',
  needs: 'staff',
  params: z.strictObject({ name }),
  body: z.strictObject({
    engaged: z.boolean(),
    reason: text(REASON_MAX).optional(),
    cancel_commands: z
      .boolean()
      .default(false)
      .describe('Of exec, when it is engaged: cancel what is queued or runs, too'),
  }),
  answer: killSwitch,
  async handle({ db, params, body, caller, actor, services, afterwards }) {
    const { engaged, reason, cancel_commands: cancels } = body;
    if (params.name === 'exec' && !engaged) afterwards(() => services.jobs.redeliverCommands());
    if (params.name === 'exec' && engaged && cancels) afterwards(() => services.jobs.cancelCommands(actor));
    return toAnswer(await setSwitch(db, params.name, engaged, { actor: caller.email, reason }));
  },
});

const toAnswer = (row: KillSwitch) => ({ ...shown(row), guards: SWITCHES[row.name as SwitchName] });

export const switchRoutes = [list, set];
