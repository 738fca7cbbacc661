import { SWITCHES, listSwitches, setSwitch, type SwitchName } from '@longhaul/access';
import type { Command } from './commands.js';
import { OPERATOR } from './context.js';
import { UsageError } from './usage.js';

const command = (name: SwitchName): Command => ({
  args: ['on|off'],
  options: ['reason', 'cancel'],
  async run(context, [state], { reason, cancel }) {
    if (state !== 'on' && state !== 'off')
      throw new UsageError(`Say on or off: longhaul switch ${name} on|off`);
    const engaged = state === 'off';
    if (engaged && !reason) throw new UsageError('Give a --reason: everybody who is refused reads it.');
    if (cancel && !(engaged && name === 'exec'))
      throw new UsageError('--cancel goes with: longhaul switch exec off');
    await context.change(`switch ${name} ${state}`, { reason, cancel }, (tx) =>
      setSwitch(tx, name, engaged, { actor: OPERATOR, reason }),
    );
    console.log(engaged ? `Off for everybody: ${SWITCHES[name]}.` : `On again: ${name}.`);
    if (name === 'exec' && !engaged) await context.jobs.redeliverCommands();
    if (cancel) console.log(`${await context.jobs.cancelCommands({})} commands cancelled or asked to stop.`);
  },
});

export const switchCommands: Record<string, Command> = {
  'switch list': {
    args: [],
    async run({ db }) {
      for (const { name, engaged, reason, actor, changedAt } of await listSwitches(db)) {
        const since = actor ? `since ${changedAt.toISOString()} by ${actor}` : '';
        console.log([name.padEnd(5), engaged ? 'OFF' : 'on ', since, reason].filter(Boolean).join('  '));
      }
    },
  },
  'switch mcp': command('mcp'),
  'switch exec': command('exec'),
};
