import { duplexPair, type Duplex } from 'node:stream';
import { AppError } from '@longhaul/errors';
import fc from 'fast-check';
import type { GuestSession } from '../channel.js';
import { base64Field, countField, LineReader, parseAnswer, ProtocolViolation } from './answers.js';
import { AgentConnection } from './connection.js';
import { AgentSession } from './session.js';

/** The same cases in every run; a failure names the one that it is. */
const SEED = 20_261_121;
const MIB = 1024 * 1024;
const latin = (text: string) => Buffer.from(text, 'latin1');

describe('the pieces of the protocol', () => {
  const text = fc.array(
    fc.oneof(
      fc.constantFrom('\xff', '\n', '{"return": {}}\n', '\xff{"return": 1}\n', '{"return": ', 'x'.repeat(70)),
      fc.string({ maxLength: 12 }),
    ),
    { maxLength: 12 },
  );
  const cuts = fc.array(fc.nat(400), { maxLength: 12 });

  it('do not depend on where what the guest sends is split', () => {
    fc.assert(
      fc.property(text, cuts, (parts, at) => {
        const bytes = latin(parts.join(''));
        const lines = (pieces: Buffer[]) => {
          const reader = new LineReader(64);
          // What came before a sentinel is forgotten, read or not.
          let seen: string[] = [];
          for (const piece of pieces) {
            try {
              const now = reader.push(piece).map((line) => line.toString('latin1'));
              seen = piece.includes(0xff) ? now : [...seen, ...now];
            } catch (error) {
              if (!(error instanceof ProtocolViolation)) throw error;
              return 'violated';
            }
          }
          return seen.join('\n');
        };
        const split = lines(piecesOf(bytes, at));
        // A long line in front of a sentinel that came with it is skipped; in pieces nobody knows of the sentinel yet.
        return split === 'violated' || split === lines([bytes]);
      }),
      { numRuns: 20_000, seed: SEED },
    );
  });

  it('take any answer apart without another error than their own', () => {
    const value = fc.oneof(
      { withCrossShrink: true },
      fc.json({ maxDepth: 3 }),
      fc.string(),
      fc.base64String(),
    );
    const only = (work: () => unknown) => {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof ProtocolViolation)) throw error;
        return undefined;
      }
    };
    fc.assert(
      fc.property(value, fc.boolean(), (inner, wrap) => {
        const answer = only(() => parseAnswer(latin(wrap ? `{"return": ${inner}}` : inner)));
        const count = only(() => countField(answer, 'count'));
        if (typeof count === 'number' && count < 0) throw new Error(`a count of ${count}`);
        const data = only(() => base64Field({ data: inner }, 'data', 10)) as Buffer | undefined;
        if (data && data.length > 10) throw new Error(`${data.length} bytes`);
      }),
      { numRuns: 20_000, seed: SEED },
    );
  });
});

/** What a session does in a case, and what must hold of what comes back. */
const OPERATIONS: Record<string, (guest: GuestSession) => Promise<void>> = {
  ping: (guest) => guest.ping(),
  async spawn(guest) {
    expect((await guest.spawn({ path: 'true' })).pid).toBeGreaterThanOrEqual(0);
  },
  async run(guest) {
    const { exitCode, stdout, stderr } = await guest.run({ path: 'true', stdin: latin('x') }, 5);
    expect(Number.isSafeInteger(exitCode)).toBe(true);
    expect(Math.max(stdout.length, stderr.length)).toBeLessThanOrEqual(MIB);
  },
  async readFile(guest) {
    const found = await guest.readFile('/f', 3, 2 * MIB);
    if (found) expect(found.data.length).toBeLessThanOrEqual(2 * MIB);
  },
  writeFile: (guest) => guest.writeFile('/f', Buffer.alloc(100)),
  setTime: (guest) => guest.setTime(new Date(0)),
};

interface Reply {
  kind: 'good' | 'text' | 'half' | 'twice' | 'wrong id' | 'never' | 'hang up' | 'late sentinel';
  text: string;
  at: number[];
}
interface Case {
  operation: string;
  /** One for each request; the last one for all that follow. The first is the answer to the sync. */
  replies: Reply[];
}

const claims = [
  '{"return": {"count": 1073741824, "buf-b64": "QQ==", "eof": false}}',
  '{"return": {"count": 1073741824}}',
  '{"return": {"exited": true, "exitcode": 0, "out-data": "QUFB", "out-truncated": true}}',
  '{"return": {"exited": true, "exitcode": -1}}',
  '{"return": {"exited": true, "signal": 1e300}}',
  '{"return": {"exited": "yes"}}',
  '{"return": {"exited": false}}',
  '{"return": {"pid": 9007199254740993}}',
  '{"return": {"pid": -1}}',
  '{"return": {"__proto__": {"pid": 1}}}',
  '{"return": null}',
  '{"return": {}, "error": {"desc": "both"}}',
  '{"error": {"class": "GenericError", "desc": "No space left on device"}}',
  '{"error": {"class": "CommandNotFound", "desc": "Command has been disabled"}}',
  '{"error": {"class": "GenericError", "desc": "failed to open: No such file or directory"}}',
  '{"error": {"desc": {"toString": 1}}}',
  '{"error": {"desc": ["a", {"b": []}]}}',
  '{"error": null}',
  '['.repeat(2_000),
];
const reply: fc.Arbitrary<Reply> = fc.record({
  kind: fc.constantFrom<Reply['kind'][]>(
    ...(['good', 'good', 'good', 'text', 'text', 'text', 'half', 'twice', 'wrong id'] as const),
    ...(['never', 'hang up', 'late sentinel'] as const),
  ),
  text: fc.oneof(
    fc.constantFrom(...claims),
    fc.string({ maxLength: 40 }),
    fc.json({ maxDepth: 2 }).map((json) => `{"return": ${json}}`),
    fc.json({ maxDepth: 1 }).map((json) => `{"error": {"desc": ${json}}}`),
  ),
  at: fc.array(fc.nat(80), { maxLength: 3 }),
});
const conversation: fc.Arbitrary<Case> = fc.record({
  operation: fc.constantFrom(...Object.keys(OPERATIONS)),
  replies: fc
    .tuple(
      fc.oneof(
        {
          weight: 8,
          arbitrary: fc.record({
            kind: fc.constant('good' as const),
            text: fc.constant(''),
            at: fc.array(fc.nat(80), { maxLength: 3 }),
          }),
        },
        { weight: 1, arbitrary: reply },
      ),
      fc.array(reply, { minLength: 1, maxLength: 5 }),
    )
    .map(([first, rest]) => [first, ...rest]),
});

const CASES = 100_000;
const SAMPLE = 2_000;
const AT_ONCE = 200;
/** So short, as many wait in vain. */
const ANSWER_MS = 40;
const HANGS_MS = 60_000;

function* conversations(): Generator<Case> {
  for (let sample = 0; sample * SAMPLE < CASES; sample++)
    yield* fc.sample(conversation, { numRuns: SAMPLE, seed: SEED + sample });
}

it(`an agent that answers anything: ${CASES} conversations end, with an answer or a clear code`, async () => {
  const loose: unknown[] = [];
  const onLoose = (reason: unknown) => loose.push(reason);
  process.on('unhandledRejection', onLoose);
  const ends = new Map<string, number>();
  const cases = conversations();
  const converseOn = async () => {
    // Each takes the next one, so that nobody waits for those that last seconds.
    for (const one of cases) {
      const outcome = await converse(one);
      if (typeof outcome !== 'string' || outcome === 'hangs')
        throw new Error(`${String(outcome)} in ${JSON.stringify(one)}`, { cause: outcome });
      ends.set(outcome, (ends.get(outcome) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, converseOn));
  process.off('unhandledRejection', onLoose);
  expect(loose).toEqual([]);
  const codes = ['guest_missing_dependency', 'guest_out_of_space', 'guest_unreachable'];
  expect([...ends.keys()].sort()).toEqual(['answered', ...codes]);
  // Otherwise the cases are not what they are meant to be.
  for (const count of ends.values()) expect(count).toBeGreaterThan(20);
}, 300_000);

it('an agent that never stops answering: what it sends is not kept', async () => {
  const chunk = Buffer.alloc(65_536, 'x');
  const flood = async (begin: string) => {
    const [ours, guest] = duplexPair();
    guest.on('error', () => {});
    const talk = AgentConnection.open(ours, 5_000, new AbortController().signal).then(
      () => 'answered',
      (error: AppError) => error.code,
    );
    guest.write(latin(begin));
    const closed = new Promise((resolve) => ours.once('close', resolve));
    let sent = 0;
    while (!guest.destroyed && !ours.destroyed && sent < 1024 * MIB) {
      sent += chunk.length;
      await Promise.race([closed, new Promise((resolve) => guest.write(chunk, resolve))]);
    }
    ours.destroy();
    return { sent, end: await talk };
  };
  const before = process.memoryUsage().rss;
  const line = await flood('\xff{"return": "');
  expect(line.end).toBe('guest_unreachable');
  expect(line.sent).toBeLessThan(8 * MIB);
  // Left over from before, as far as anybody can know: 1 GB of it is skipped.
  const leftover = await flood('');
  expect(leftover.end).toBe('guest_unreachable');
  expect(process.memoryUsage().rss - before).toBeLessThan(100 * MIB);
}, 60_000);

/** The code that the conversation ended with, or `answered`; anything that is no AppError as it is. */
async function converse({ operation, replies }: Case): Promise<unknown> {
  const [ours, guest] = duplexPair();
  answer(guest, replies);
  const talk = async () => {
    const connection = await AgentConnection.open(ours, ANSWER_MS, new AbortController().signal);
    try {
      await OPERATIONS[operation]!(new AgentSession(connection));
      return 'answered';
    } finally {
      connection.close();
    }
  };
  let timer: NodeJS.Timeout | undefined;
  const hangs = new Promise((resolve) => (timer = setTimeout(resolve, HANGS_MS, 'hangs')));
  const end = await Promise.race([hangs, talk().catch((error: unknown) => error)]);
  clearTimeout(timer);
  guest.destroy();
  if (!ours.destroyed) return new Error('the connection is still open');
  return end instanceof AppError ? end.code : end;
}

/** Answers each request by the next reply. */
function answer(guest: Duplex, replies: Reply[]): void {
  let asked = 0;
  guest.on('error', () => {});
  guest.on('data', (data: Buffer) => {
    for (const line of data.toString('latin1').replace(/^\xff/, '').trim().split('\n')) {
      const { kind, text, at } = replies[Math.min(asked++, replies.length - 1)]!;
      if (kind === 'hang up') return void guest.destroy();
      const good = goodAnswer(JSON.parse(line) as Request);
      const bytes = {
        good,
        text: `${text}\n`,
        half: good.slice(0, good.length / 2),
        twice: good + good,
        'wrong id': '\xff{"return": 12345}\n',
        'late sentinel': `${good}\xff{"return"`,
        never: '',
      }[kind];
      for (const piece of piecesOf(latin(bytes), at)) guest.write(piece);
    }
  });
}

interface Request {
  execute: string;
  arguments?: { id?: number; 'buf-b64'?: string };
}

function goodAnswer({ execute, arguments: args }: Request): string {
  const value: Record<string, unknown> = {
    'guest-sync-delimited': args?.id,
    'guest-exec': { pid: 5 },
    'guest-exec-status': { exited: true, exitcode: 0, 'out-data': 'QQ==' },
    'guest-file-open': 7,
    'guest-file-seek': { position: 3, eof: false },
    'guest-file-read': { count: 1, 'buf-b64': 'QQ==', eof: true },
    'guest-file-write': { count: ((args?.['buf-b64']?.length ?? 0) / 4) * 3, eof: false },
    'guest-fsfreeze-status': 'frozen',
    'guest-fsfreeze-thaw': 1,
  };
  const sentinel = execute === 'guest-sync-delimited' ? '\xff' : '';
  return `${sentinel}${JSON.stringify({ return: value[execute] ?? {} })}\n`;
}

function piecesOf(bytes: Buffer, cuts: number[]): Buffer[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return ends
    .map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end))
    .filter(({ length }) => length > 0);
}
