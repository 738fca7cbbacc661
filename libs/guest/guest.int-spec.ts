import { randomUUID } from 'node:crypto';
import { eventually } from '../../test/support/eventually.js';
import {
  type NamespaceAgentOptions,
  namespaceAgentLacks,
  startNamespaceAgent,
} from '../../test/support/namespace-agent.js';
import { describeGuestChannel } from './channel.contract.js';
import { describeCommands } from './command.contract.js';
import { dispatchCommand, pollCommand, writeEpoch } from './command.js';
import type { CommandEnd } from './command-state.js';

function inNamespace(name: string, options: NamespaceAgentOptions, suite: typeof describeCommands): void {
  const lacks = namespaceAgentLacks(options);
  if (lacks) it.skip(`${name}: not tested here, as that needs ${lacks}`, () => {});
  else suite(name, () => startNamespaceAgent(options));
}

inNamespace('guest agent in a namespace', {}, describeGuestChannel);
inNamespace('with control groups', { cgroups: true }, describeCommands);
inNamespace('without control groups', {}, describeCommands);
inNamespace('with the tools of busybox', { busybox: true, cgroups: true }, describeCommands);

inNamespace('that starts anew', {}, (name) => {
  it(`a guest agent ${name} is waited for`, async () => {
    const guest = await startNamespaceAgent();
    try {
      for (let time = 0; time < 10; time++) {
        guest.signal('SIGKILL');
        await guest.channel.session((session) => session.ping());
      }
    } finally {
      await guest.stop();
    }
  }, 60_000);
});

inNamespace('on a small disk', { diskMb: 60 }, (name, make) => {
  it(`commands ${name}: output leaves room for others, and a full disk refuses the next command`, async () => {
    const guest = await make();
    const epoch = randomUUID();
    const run = async (command: string) => {
      const spec = { id: randomUUID(), epoch, command, timeoutSeconds: 60, streamLimitBytes: 200_000_000 };
      await guest.channel.session((session) => dispatchCommand(session, spec));
      return eventually(async () => {
        const from = { stdout: 0, stderr: 0 };
        const look = await guest.channel.session((session) =>
          pollCommand(session, spec.id, epoch, from, 1000),
        );
        return ['ended', 'refused'].includes(look.state.phase) && look.state;
      });
    };
    try {
      await guest.channel.session((session) => writeEpoch(session, epoch));
      const end = (await run('head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2')) as CommandEnd;
      expect(end).toMatchObject({ phase: 'ended', exitCode: 0 });
      expect(end.stdoutBytes + end.stdoutDropped).toBe(50_000_000);
      expect(end.stderrBytes + end.stderrDropped).toBe(50_000_000);
      expect(end.stdoutBytes + end.stderrBytes).toBeGreaterThan(50_000_000);
      expect(end.stdoutBytes + end.stderrBytes).toBeLessThan(60_000_000);
      expect(await run('echo x')).toEqual({ phase: 'refused', reason: 'no_space' });
    } finally {
      await guest.stop();
    }
  }, 60_000);
});
