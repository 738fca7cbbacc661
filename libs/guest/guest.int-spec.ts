import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { channelAround, neverClosing } from '../../test/support/agent-child.js';
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
  else {
    const tellsShort = options.busybox && options.cgroups;
    suite(name, async () => ({ ...(await startNamespaceAgent(options)), tellsShort }));
  }
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

inNamespace('with files that nobody closed', {}, (name) => {
  describe(`a guest agent ${name}`, () => {
    const support = join(import.meta.dirname, '../../test/support');
    let guest: Awaited<ReturnType<typeof startNamespaceAgent>>;

    beforeAll(async () => void (guest = await startNamespaceAgent()));
    afterAll(() => guest?.stop());

    const open = () => guest.openFiles().filter((path) => /^\/(etc|proc)\//.test(path));
    const ping = () => guest.channel.session((session) => session.ping());
    /** Killed when it should have closed so many files, and no answer of the agent is on its way. */
    const killedWith = async (kept: number) => {
      const script = ['--import', join(support, 'register-typescript.mjs'), join(support, 'agent-child.ts')];
      const args = ['--no-warnings', ...script, guest.socketPath, '/etc/passwd', '/etc/group'];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      for await (const line of createInterface({ input: child.stdout })) if (line === `${kept} kept`) break;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    };
    /** What the next session asks the agent for, to ping it. */
    const asked = async () => {
      const commands: string[] = [];
      const listening = channelAround(guest.socketPath, (call) => (command, args) => {
        commands.push(command);
        return call(command, args);
      });
      await listening.session((session) => session.ping());
      return commands;
    };

    it('is rid of them with the next session after a process was killed, and one more while it closed them', async () => {
      await killedWith(2);
      expect(open().sort()).toEqual(['/etc/group', '/etc/passwd']);
      await killedWith(16);
      expect(open()).toHaveLength(3);
      await ping();
      expect(open()).toEqual([]);
    }, 60_000);

    it('is rid of them with the next session after one of the same process was cut off', async () => {
      const stop = new AbortController();
      const onIdle = (kept: number) => kept === 1 && stop.abort(new Error('cut off'));
      const session = channelAround(guest.socketPath, neverClosing(onIdle)).session(
        (session) => session.readFile('/etc/passwd', 0, 100),
        { signal: stop.signal },
      );
      await expect(session).rejects.toThrow('cut off');
      expect(open()).toEqual(['/etc/passwd']);
      await ping();
      expect(open()).toEqual([]);
    });

    it('is asked for nothing more once that is done, nor after sessions that fail with all closed', async () => {
      await killedWith(2);
      expect((await asked()).at(-1)).toBe('guest-ping');
      expect(await asked()).toEqual(['guest-ping']);
      const session = guest.channel.session(async (session) => {
        expect(await session.readFile('/etc/absent', 0, 100)).toBeUndefined();
        await expect(session.readFile('/etc', 0, 100)).rejects.toMatchObject({ code: 'guest_unreachable' });
        await session.run({ path: 'no-such-program' }, 1_000);
      });
      await expect(session).rejects.toMatchObject({ code: 'guest_missing_dependency' });
      expect(await asked()).toEqual(['guest-ping']);
    }, 60_000);
  });
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
