import { type CommandEnd, isSameProcess, parseOutcome, parseSupervisor } from './command-state.js';

describe('the outcome', () => {
  it('is what the supervisor wrote', () => {
    expect(parseOutcome('ended 0 exit 1 2 3 4 50 .\n')).toEqual({
      phase: 'ended',
      exitCode: 0,
      reason: 'exit',
      stdoutBytes: 1,
      stdoutDropped: 2,
      stderrBytes: 3,
      stderrDropped: 4,
      durationMs: 50,
    });
    expect(parseOutcome('refused tombstone .\n')).toEqual({ phase: 'refused', reason: 'tombstone' });
  });

  it.each([
    [0, undefined],
    [128, undefined],
    [129, 1],
    [137, 9],
    [192, 64],
    [193, undefined],
    [255, undefined],
  ])('of exit code %p has the signal %p', (code, signal) => {
    const outcome = parseOutcome(`ended ${code} cancel 0 0 0 0 0 .\n`) as CommandEnd;
    expect([outcome.exitCode, outcome.signal]).toEqual([code, signal]);
  });

  it.each(['', 'ended', 'ended 0 exit 1 2 3 4 5', 'ended 0 exit 1 2 3 4 50 .', 'refused no_space'])(
    'is not there yet in %j',
    (text) => expect(parseOutcome(text)).toBeUndefined(),
  );

  it.each([
    ' .\n',
    'ended 256 exit 0 0 0 0 0 .\n',
    'ended -1 exit 0 0 0 0 0 .\n',
    'ended 0 other 0 0 0 0 0 .\n',
    'ended 0 exit 0 0 0 0 .\n',
    'ended 0 exit 99999999999999999999 0 0 0 0 .\n',
    'refused because .\n',
    'x\nended 0 exit 0 0 0 0 0 .\n',
  ])('is refused in %j', (text) => expect(() => parseOutcome(text)).toThrow(RangeError));
});

describe('the supervisor', () => {
  const stat = (state: string, startTime: number, name = 'sh') =>
    `42 (${name}) ${state} 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 ${startTime} 2424832 200 184467`;

  it('is named by pid and start time', () => {
    expect(parseSupervisor('42 1234 .\n')).toEqual({ pid: 42, startTime: '1234' });
    for (const text of ['', '42 1234', '42 1234 ', '../1 1234 .\n', '42 x .\n']) {
      expect(parseSupervisor(text)).toBeUndefined();
    }
  });

  it('lives when its process is that one, and no zombie', () => {
    expect(isSameProcess(stat('S', 1234), '1234')).toBe(true);
    expect(isSameProcess(stat('S', 1234, 'a) Z (b c'), '1234')).toBe(true);
    expect(isSameProcess(stat('S', 9999), '1234')).toBe(false);
    expect(isSameProcess(stat('Z', 1234), '1234')).toBe(false);
    for (const text of [undefined, '', 'garbage', ') ']) expect(isSameProcess(text, '1234')).toBe(false);
  });
});
