import { createHash, randomInt, randomUUID } from 'node:crypto';
import { jest } from '@jest/globals';
import { eventually } from '../../test/support/eventually.js';
import type { GuestUnderTest } from './channel.contract.js';
import {
  cancelCommand,
  collectCommands,
  type CommandPoll,
  type CommandSpec,
  dispatchCommand,
  killLeftovers,
  pollCommand,
  readEpoch,
  writeEpoch,
} from './command.js';
import type { CommandEnd } from './command-state.js';
import { outputFile } from './scripts.js';

/** A guest whose power button the test may press. */
export interface CommandGuestUnderTest extends GuestUnderTest {
  /** The hard way: memory is lost, the disk is kept. Resolves when the guest answers again. */
  reboot(): Promise<void>;
  /** Has busybox, control groups and an agent. */
  tellsShort?: boolean;
}

const MIB = 1024 * 1024;
const NONE = { stdout: 0, stderr: 0 };

/** What the command protocol keeps in every Linux guest. */
export function describeCommands(name: string, make: () => Promise<CommandGuestUnderTest>): void {
  // An emulated VM is twenty times slower than this host.
  jest.setTimeout(90_000);
  describe(`commands: ${name}`, () => {
    let guest: CommandGuestUnderTest;
    let epoch: string;

    const newEpoch = async () => {
      epoch = randomUUID();
      await guest.channel.session((session) => writeEpoch(session, epoch));
    };
    beforeAll(async () => {
      guest = await make();
      await newEpoch();
    });
    afterAll(() => guest?.stop());

    const spec = (command: string, more: Partial<CommandSpec> = {}): CommandSpec => ({
      id: randomUUID(),
      epoch,
      command,
      timeoutSeconds: 60,
      streamLimitBytes: 64 * MIB,
      ...more,
    });
    const dispatch = (given: CommandSpec) =>
      guest.channel.session((session) => dispatchCommand(session, given));
    const start = async (command: string, more?: Partial<CommandSpec>) => {
      const started = spec(command, more);
      await dispatch(started);
      return started;
    };
    const poll = ({ id, epoch }: CommandSpec, offsets = NONE, maxBytes = MIB) =>
      guest.channel.session((session) => pollCommand(session, id, epoch, offsets, maxBytes));
    const cancel = ({ id, epoch }: CommandSpec, grace = 5) =>
      guest.channel.session((session) => cancelCommand(session, id, epoch, grace));
    const sh = async (script: string) => {
      const result = await guest.channel.session((session) =>
        session.run({ path: 'sh', args: ['-c', script] }, 10_000),
      );
      return result.stdout.toString().trim();
    };
    /** Polls until `phase`, from the start each time, so that the last poll has all of a short output. */
    const reach = (command: CommandSpec, phase: CommandPoll['state']['phase'], withinMs = 30_000) =>
      eventually(
        async () => {
          const look = await poll(command);
          return look.state.phase === phase ? look : undefined;
        },
        { withinMs },
      );
    const finish = async (command: CommandSpec, withinMs?: number) => {
      const { state, stdout, stderr } = await reach(command, 'ended', withinMs);
      return { ...(state as CommandEnd), out: stdout.toString(), err: stderr.toString() };
    };
    const printed = (command: CommandSpec, text: string) =>
      eventually(async () => (await poll(command)).stdout.toString().includes(text), { withinMs: 20_000 });
    const newPath = () => `/tmp/longhaul-${randomUUID()}`;
    const isGone = (pid: string) =>
      eventually(async () => (await sh(`kill -0 ${pid} || echo gone`)) === 'gone');

    it('tells how a command ended, and what it printed where', async () => {
      const end = await finish(await start('echo out; echo err >&2; exit 7'));
      expect(end).toMatchObject({ exitCode: 7, reason: 'exit', out: 'out\n', err: 'err\n' });
      expect(end).toMatchObject({ stdoutBytes: 4, stderrBytes: 4, stdoutDropped: 0, stderrDropped: 0 });
      expect(end.signal).toBeUndefined();
      expect(end.durationMs).toBeLessThan(20_000);
    });

    it('tells who has sent a short command how it ended, with the bytes that a look brings, or has them look', async () => {
      const tell = async () => {
        const command = spec(`printf 'out ended \\0\\n'; printf 'ended 0 exit 1' >&2; exit 3`);
        const told = await guest.channel.session(async (session) =>
          eventually(await dispatchCommand(session, command)),
        );
        return { told, look: await reach(command, 'ended') };
      };
      // On a busy machine even a short command takes its time.
      const { told, look } = await (guest.tellsShort
        ? eventually(async () => [await tell()].find(({ told }) => told !== 'look'))
        : tell());
      expect(look).toMatchObject({
        state: { exitCode: 3 },
        stdout: Buffer.from('out ended \0\n'),
        stderr: Buffer.from('ended 0 exit 1'),
      });
      expect(told).toEqual(guest.tellsShort ? look : 'look');
    });

    it.each([
      ['true', 0, undefined],
      ['false', 1, undefined],
      ['kill -9 $$', 137, 9],
      ['no-such-command', 127, undefined],
      ['(', 2, undefined],
      ['-x', 127, undefined],
      ['exit 255', 255, undefined],
    ])('ends at once: %s', async (command, exitCode, signal) => {
      const end = await finish(await start(command));
      expect([end.exitCode, end.signal]).toEqual([exitCode, signal]);
    });

    it('knows the exit code of commands that last about as long as the supervisor waits at first', async () => {
      const seconds = Array.from({ length: 30 }, (_, n) => (0.06 + n * 0.002).toFixed(3));
      const commands = await Promise.all(seconds.map((time) => start(`sleep ${time}; exit 143`)));
      for (const command of commands) expect((await finish(command)).exitCode).toBe(143);
    });

    it('gives a command a plain environment', async () => {
      const command =
        'cat; pwd; umask; echo "$HOME $USER ${PATH:+path}"; grep SigIgn /proc/self/status; ls -l /proc/self/fd';
      const lines = (await finish(await start(command))).out.split('\n');
      expect(lines.slice(0, 4)).toEqual(['/root', '0022', '/root root path', 'SigIgn:\t0000000000000000']);
      // Its own three, and the one that ls reads with.
      expect(lines.slice(5, -1)).toHaveLength(4);
    });

    it('takes any text of up to 64 KiB, and refuses the rest', async () => {
      const text = `printf %s 'ü\u{1F600} "$HOME" \\ \t\n%s' # `;
      const end = await finish(await start(text.padEnd(64 * 1024 - 6, 'x')));
      expect(end.out).toBe('ü\u{1F600} "$HOME" \\ \t\n%s');
      for (const wrong of ['', 'a\0b', '\ud800', 'x'.repeat(64 * 1024 + 1)]) {
        await expect(dispatch(spec(wrong))).rejects.toMatchObject({ code: 'invalid_arguments' });
      }
    });

    it('starts in the working directory, and not at all without it', async () => {
      expect((await finish(await start('pwd', { workingDirectory: '/usr/bin' }))).out).toBe('/usr/bin\n');
      for (const workingDirectory of ['/no/such', '/etc/passwd']) {
        const { state } = await reach(await start('true', { workingDirectory }), 'refused');
        expect(state).toMatchObject({ reason: 'bad_working_directory' });
      }
    });

    it('runs once, however often and at the same time it is dispatched', async () => {
      const path = newPath();
      const command = spec(`echo x >>${path}; sleep 0.3`);
      await guest.channel.session((session) =>
        Promise.all(Array.from({ length: 5 }, () => dispatchCommand(session, command))),
      );
      await dispatch(command);
      await finish(command);
      await dispatch(command);
      await finish(await start('true'));
      expect(await sh(`cat ${path}`)).toBe('x');
    });

    it('does not start in another epoch', async () => {
      const path = newPath();
      const late = spec(`echo x >${path}`, { epoch: randomUUID() });
      await dispatch(late);
      await finish(await start('true'));
      expect((await poll({ ...late, epoch })).state).toEqual({ phase: 'absent' });
      expect((await poll(late)).state).toEqual({ phase: 'lost', reason: 'rebooted' });
      expect(await sh(`ls ${path}`)).toBe('');
    });

    it('never starts after a cancel that came first', async () => {
      const path = newPath();
      const command = spec(`echo x >${path}`);
      expect((await poll(command)).state).toEqual({ phase: 'absent' });
      await cancel(command);
      const { state } = await reach(command, 'refused');
      expect(state).toEqual({ phase: 'refused', reason: 'tombstone' });
      await dispatch(command);
      await finish(await start('true'));
      expect((await poll(command)).state).toEqual(state);
      expect(await sh(`ls ${path}`)).toBe('');
    });

    it('loses and repeats no byte of 100 MB of binary output', async () => {
      const command = await start(
        'head -c 100000000 /dev/urandom | tee /proc/self/fd/2 | sha256sum >/tmp/longhaul-sum; cat /tmp/longhaul-sum',
        { streamLimitBytes: 200 * MIB, timeoutSeconds: 600 },
      );
      const hash = createHash('sha256');
      const offsets = { ...NONE };
      let tail = '';
      await eventually(
        async () => {
          const look = await poll(command, offsets, randomInt(1, 2 * MIB));
          hash.update(look.stderr);
          tail += look.stdout.toString();
          offsets.stdout += look.stdout.length;
          offsets.stderr += look.stderr.length;
          if (look.state.phase !== 'ended') return expect(look.state.phase).toMatch(/absent|running/);
          return offsets.stderr === look.state.stderrBytes && offsets.stdout === look.state.stdoutBytes;
        },
        { withinMs: 280_000, everyMs: 1 },
      );
      expect(offsets.stderr).toBe(100_000_000);
      expect(tail.split(' ')[0]).toBe(hash.digest('hex'));
    }, 300_000);

    it('shows output while the command runs, in pieces as small as they come', async () => {
      const gate = newPath();
      const command = await start(
        `mkfifo ${gate}1 ${gate}2 ${gate}3; for i in 1 2 3; do echo line $i; read go <${gate}$i; done`,
      );
      for (const line of [1, 2, 3]) {
        await printed(command, `line ${line}\n`);
        expect((await poll(command, { stdout: 7, stderr: 0 }, 3)).stdout.length).toBeLessThanOrEqual(3);
        await sh(`echo go >${gate}${line}`);
      }
      expect((await finish(command)).exitCode).toBe(0);
    });

    it('keeps the limit of each stream, counts the rest, and does not hold the command up', async () => {
      const command =
        'i=0; while [ $i -lt 3000 ]; do echo line >&2; i=$((i + 1)); done; head -c 3000000 /dev/zero';
      const end = await finish(await start(command, { streamLimitBytes: 100_000 }));
      expect(end).toMatchObject({ exitCode: 0, stdoutBytes: 100_000, stdoutDropped: 2_900_000 });
      expect(end).toMatchObject({ stderrBytes: 15_000, stderrDropped: 0 });
      const none = await finish(await start('echo x', { streamLimitBytes: 0 }));
      expect(none).toMatchObject({ exitCode: 0, stdoutBytes: 0, stdoutDropped: 2 });
    });

    it('goes on when the command closes its outputs', async () => {
      const path = newPath();
      const command = await start(`exec >&- 2>&-; mkfifo ${path}; read go <${path}; exit 5`);
      await eventually(async () => (await sh(`[ -p ${path} ] && echo there`)) === 'there');
      expect((await poll(command)).state).toEqual({ phase: 'running' });
      await sh(`echo go >${path}`);
      expect((await finish(command)).exitCode).toBe(5);
    });

    it('ends it at its time-out, with what ignores TERM and what left the session', async () => {
      const command = await start(
        'trap "" TERM; setsid sh -c "trap \'\' TERM; echo \\$\\$; while :; do sleep 1; done" & sleep 600; sleep 600',
        { timeoutSeconds: 1 },
      );
      const end = await finish(command);
      expect(end).toMatchObject({ reason: 'timeout', exitCode: 137, signal: 9 });
      expect(end.durationMs).toBeGreaterThanOrEqual(5_900);
      await isGone(end.out.trim());
    });

    it('is not fooled by a command that kills sleep and dd', async () => {
      const command = 'pkill -x sleep; pkill -x dd; echo still; head -c 200000 /dev/zero | wc -c';
      const end = await finish(await start(`command -v pkill >/dev/null || exit 99; ${command}`));
      if (end.exitCode !== 99) expect(end).toMatchObject({ reason: 'exit', exitCode: 0 });
    });

    it('cancels with TERM first, so that a command can clean up', async () => {
      const command = await start(
        'trap "echo cleaned; exit 3" TERM; echo ready; while :; do sleep 0.1; done',
      );
      await printed(command, 'ready');
      await cancel(command);
      expect(await finish(command)).toMatchObject({ reason: 'cancel', exitCode: 3, out: 'ready\ncleaned\n' });
    });

    it('lets children clean up as well, and does not wait once all are gone', async () => {
      const child = 'trap "echo child; exit" TERM; echo ready; while :; do sleep 0.1; done';
      const command = await start(`sh -c '${child}' & wait`);
      await printed(command, 'ready');
      // More than the test may take: only those who heed TERM end before it is over.
      await cancel(command, 600);
      expect(await finish(command)).toMatchObject({ reason: 'cancel', out: 'ready\nchild\n' });
    });

    it('cancels children in the background, in sessions of their own, and deaf to TERM', async () => {
      const deaf = "trap '' TERM; echo \\$\\$; exec sleep 600";
      const command = await start(
        `sh -c "${deaf}" & (setsid sh -c "${deaf}" &) & sleep 600 & echo $!; echo ready; wait`,
      );
      await printed(command, 'ready');
      await eventually(async () => (await poll(command)).stdout.toString().trim().split('\n').length === 4);
      await Promise.all([cancel(command, 1), cancel(command, 1)]);
      const end = await finish(command);
      expect(end.reason).toBe('cancel');
      for (const pid of end.out.match(/\d+/g)!) await isGone(pid);
    });

    it('leaves the end of a command as it was when the cancel comes late', async () => {
      const command = await start('exit 4');
      const before = await finish(command);
      await cancel(command, 0);
      await sh('sleep 0.2');
      expect(await finish(command)).toEqual(before);
    });

    it('lets a daemon live that the command started, and print without harm', async () => {
      const path = newPath();
      const daemon = `while :; do echo tick || exit; echo $$ >${path}; sleep 0.05; done`;
      const command = await start(`echo begin; setsid sh -c '${daemon}' & exit 0`);
      const end = await finish(command);
      expect(end).toMatchObject({ reason: 'exit', exitCode: 0 });
      expect(end.out).toMatch(/^begin\n/);
      expect(end.out.length).toBe(end.stdoutBytes);
      const beat = () => sh(`stat -c %Y.%z ${path}; rm ${path}`);
      await eventually(beat);
      await eventually(beat);
      expect((await poll(command, { stdout: end.stdoutBytes, stderr: 0 })).stdout.length).toBe(0);
      await eventually(() => sh(`cat ${path}`));
      const pid = await sh(`cat ${path}`);
      await guest.channel.session((session) => killLeftovers(session, command.id));
      await isGone(pid);
      expect(await finish(command)).toMatchObject({ reason: 'exit', exitCode: 0 });
    });

    it('knows that nobody can say how it ended when its supervisor was killed', async () => {
      const command = await start('echo $$; exec sleep 600');
      const [pid = ''] = (await printedLine(command)).split('\n');
      await sh(`read -r supervisor rest </run/longhaul/jobs/${command.id}/supervisor; kill -9 "$supervisor"`);
      const { state } = await eventually(async () => {
        const look = await poll(command, { stdout: pid.length + 1, stderr: 0 });
        return look.state.phase === 'lost' && look;
      });
      expect(state).toEqual({ phase: 'lost', reason: 'supervisor_died' });
      await guest.channel.session((session) => killLeftovers(session, command.id));
      await isGone(pid);
    });
    const printedLine = async (command: CommandSpec) => {
      await printed(command, '\n');
      return (await poll(command)).stdout.toString();
    };

    it('notices that the disk went back behind what was read', async () => {
      const command = await start('echo 123456; exec sleep 600');
      await printed(command, '123456');
      await sh(`echo 12 >/var/lib/longhaul/jobs/${command.id}/stdout`);
      expect((await poll(command, { stdout: 7, stderr: 0 })).state).toEqual({
        phase: 'lost',
        reason: 'reverted',
      });
      await cancel(command, 0);
      const ended = await reach(command, 'ended');
      expect(ended.state).toMatchObject({ reason: 'cancel' });
    });

    it('collects old ones, but neither what is to be kept nor what runs', async () => {
      const gate = newPath();
      const running = await start(`mkfifo ${gate}; echo ready; read go <${gate}`);
      await printed(running, 'ready');
      const [old, kept, last] = [await start('true'), await start('true'), await start('true')];
      for (const command of [old, kept, last]) await finish(command);
      const jobs = () => sh('ls /var/lib/longhaul/jobs /run/longhaul/jobs');
      const collect = (maxAgeSeconds: number, maxCount: number) =>
        guest.channel.session((session) => collectCommands(session, [kept.id], { maxAgeSeconds, maxCount }));

      await collect(3600, 1000);
      expect(await jobs()).toContain(old.id);
      await sh(`touch -d @1000000000 /var/lib/longhaul/jobs/${old.id}`);
      await collect(3600, 1000);
      expect(await jobs()).not.toContain(old.id);
      expect(await jobs()).toContain(last.id);
      await collect(3600, 0);
      expect(await jobs()).not.toContain(last.id);
      for (const { id } of [kept, running]) expect((await jobs()).split(id)).toHaveLength(3);
      await sh(`echo go >${gate}`);
      expect((await finish(running)).exitCode).toBe(0);
    });

    it('takes a new boot for what it is: everything of the old one is lost, its output can be read, without a blank end', async () => {
      const path = `/var/lib/longhaul/counter-${randomUUID()}`;
      const command = await start(`echo x >>${path}; echo begin; sync; exec sleep 600`);
      await printed(command, 'begin');
      await guest.reboot();
      // As pulling the plug does to a file whose end was not on the disk yet.
      const blank = ['-c', 'head -c 5000 /dev/zero >>"$1"', 'sh', outputFile(command.id, 'stdout')];
      await guest.channel.session((session) => session.run({ path: 'sh', args: blank }, 10_000));
      const lost = { phase: 'lost', reason: 'rebooted' };
      expect(await poll(command)).toMatchObject({ state: lost, stdout: Buffer.from('begin\n') });
      await dispatch(command);
      await newEpoch();
      await dispatch(command);
      await finish(await start('true'));
      expect((await poll(command)).state).toEqual(lost);
      expect(await guest.channel.session(readEpoch)).toBe(epoch);
      await guest.channel.session((session) => killLeftovers(session, command.id));
      expect(await sh(`cat ${path}`)).toBe('x');
    });
  });
}
