import { randomBytes, randomUUID } from 'node:crypto';
import type { GuestChannel, GuestSession } from './channel.js';

/** A guest to test with, and how to take it away again. */
export interface GuestUnderTest {
  channel: GuestChannel;
  stop(): Promise<void>;
}

/**
 * What every GuestChannel keeps, whatever it speaks. `make` gives a Linux guest in which the channel acts as root. `reads`:
 * how many show that none leaks.
 */
export function describeGuestChannel(name: string, make: () => Promise<GuestUnderTest>, reads = 1_100): void {
  describe(`GuestChannel: ${name}`, () => {
    let guest: GuestUnderTest;
    beforeAll(async () => {
      guest = await make();
    }, 120_000);
    afterAll(() => guest?.stop());

    const sh = (script: string, ...args: string[]) => ({ path: 'sh', args: ['-c', script, 'sh', ...args] });
    const newPath = () => `/tmp/longhaul-${randomUUID()}`;

    it('answers a ping', () => guest.channel.session((session) => session.ping()));

    it('runs a program with input, arguments and environment, and keeps its outputs apart', async () => {
      const stdin = randomBytes(100_000);
      const result = await guest.channel.session((session) =>
        session.run(
          {
            ...sh('cat; printf "%s|%s" "$1" "$NAME" >&2; exit 3', "it's $HOME"),
            stdin,
            env: { NAME: 'ü', PATH: '/bin' },
          },
          10_000,
        ),
      );
      expect(result.exitCode).toBe(3);
      expect(result.stdout.equals(stdin)).toBe(true);
      expect(result.stderr.toString()).toBe("it's $HOME|ü");
    });

    it('reports the end by a signal as a shell does', async () => {
      const run = guest.channel.session((session) => session.run(sh('kill -9 $$'), 10_000));
      expect((await run).exitCode).toBe(137);
    });

    it('refuses a program that does not exist', async () => {
      const run = guest.channel.session((session) => session.run({ path: 'no-such-program' }, 10_000));
      await expect(run).rejects.toMatchObject({ code: 'guest_missing_dependency' });
    });

    it('gives up on a program that does not end, and kills it', async () => {
      const path = newPath();
      const run = guest.channel.session((session) =>
        session.run(sh(`echo $$ >${path}; exec sleep 600`), 300),
      );
      await expect(run).rejects.toMatchObject({ code: 'guest_unreachable' });
      const look = sh(
        'for try in 1 2 3 4 5 6 7 8 9; do kill -0 "$(cat "$1")" || exit 0; sleep 0.1; done; exit 1',
        path,
      );
      expect((await guest.channel.session((session) => session.run(look, 5_000))).exitCode).toBe(0);
    });

    it('starts a program without waiting for it', async () => {
      const path = newPath();
      await guest.channel.session(async (session) => {
        const { pid } = await session.spawn(
          sh('mkfifo "$1"; read line <"$1"; echo "$line" >"$1.done"', path),
        );
        expect(pid).toBeGreaterThan(1);
        await session.run(sh('until [ -p "$1" ]; do sleep 0.01; done; echo go >"$1"', path), 5_000);
        await session.run(sh('until [ -s "$1.done" ]; do sleep 0.01; done', path), 5_000);
      });
    });

    it('writes and reads files of any bytes from any offset', async () => {
      const [path, data] = [newPath(), randomBytes(3_000_001)];
      await guest.channel.session(async (session) => {
        await session.writeFile(path, data);
        const whole = await session.readFile(path, 0, 4_000_000);
        expect(whole?.data.equals(data)).toBe(true);
        expect(whole?.eof).toBe(true);
        const middle = await session.readFile(path, 1_234_567, 1_100_000);
        expect(middle?.data.equals(data.subarray(1_234_567, 2_334_567))).toBe(true);
        expect(middle?.eof).toBe(false);
        expect(await session.readFile(path, 3_000_001, 10)).toEqual({ data: Buffer.alloc(0), eof: true });
        expect(await session.readFile(path, 9_000_000, 10)).toEqual({ data: Buffer.alloc(0), eof: true });
        await session.writeFile(path, Buffer.from('short'));
        expect((await session.readFile(path, 0, 100))?.data.toString()).toBe('short');
      });
    });

    it('tells a file that does not exist from an empty one', async () => {
      const path = newPath();
      await guest.channel.session(async (session) => {
        expect(await session.readFile(path, 0, 10)).toBeUndefined();
        await session.writeFile(path, Buffer.alloc(0));
        expect(await session.readFile(path, 0, 10)).toEqual({ data: Buffer.alloc(0), eof: true });
      });
    });

    it('leaks nothing over many reads', async () => {
      const path = newPath();
      const use = async (session: GuestSession) => {
        await session.writeFile(path, Buffer.from('x'));
        for (let time = 0; time < reads; time++) await session.readFile(path, 0, 10);
      };
      await guest.channel.session(use, { holdMs: 110_000 });
    }, 120_000);

    it('lets one session at a time in', async () => {
      const order: string[] = [];
      const enter = (who: string) =>
        guest.channel.session(async (session) => {
          order.push(`${who} in`);
          await session.ping();
          order.push(`${who} out`);
        });
      await Promise.all([enter('a'), enter('b')]);
      expect(order).toEqual(['a in', 'a out', 'b in', 'b out']);
    });

    it('is dead after its session, and fresh in the next one after a session that left in the middle', async () => {
      const kept = await guest.channel.session(async (session) => {
        void session.run(sh('sleep 1; seq 100000'), 5_000).catch(() => {});
        void session.readFile('/etc/passwd', 0, 1_000_000).catch(() => {});
        return session;
      });
      await expect(kept.ping()).rejects.toMatchObject({ code: 'guest_unreachable' });
      await guest.channel.session((session) => session.ping());
    });

    it('ends a session on its signal', async () => {
      const stop = new AbortController();
      const session = guest.channel.session(
        async (session) => {
          stop.abort(new Error('not needed'));
          await session.run(sh('sleep 5'), 10_000);
        },
        { signal: stop.signal },
      );
      await expect(session).rejects.toThrow('not needed');
    });
  });
}
