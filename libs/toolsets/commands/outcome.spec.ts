import type { CommandEnd } from '@longhaul/guest';
import { outcomeOf, outcomeOfSilence } from './outcome.js';

const ended = (more: Partial<CommandEnd>): CommandEnd => ({
  phase: 'ended',
  exitCode: 0,
  reason: 'exit',
  stdoutBytes: 0,
  stderrBytes: 0,
  stdoutDropped: 0,
  stderrDropped: 0,
  durationMs: 12,
  ...more,
});
const usual = { confirmed: true, cancelled: false };
const cancelled = { confirmed: true, cancelled: true };

describe('outcomeOf', () => {
  it.each([
    [ended({}), 'succeeded'],
    [ended({ exitCode: 3 }), 'failed'],
    [ended({ exitCode: 137, signal: 9 }), 'failed'],
    [ended({ exitCode: 143, signal: 15, reason: 'timeout' }), 'timed_out'],
    [ended({ exitCode: 143, signal: 15, reason: 'cancel' }), 'timed_out'],
  ])('%j ends the job as %s, with its exit code and without an error', (state, expected) => {
    expect(outcomeOf(state, usual)).toMatchObject({
      state: expected,
      result: { exit_code: state.exitCode, duration_ms: 12 },
    });
    expect(outcomeOf(state, usual)?.error).toBeUndefined();
  });

  it('after a cancel is what came first', () => {
    expect(outcomeOf(ended({ reason: 'cancel' }), cancelled)).toMatchObject({ state: 'cancelled' });
    expect(outcomeOf(ended({ reason: 'timeout' }), cancelled)).toMatchObject({ state: 'timed_out' });
    expect(outcomeOf(ended({ exitCode: 5 }), cancelled)).toMatchObject({
      state: 'failed',
      result: { exit_code: 5 },
    });
  });

  it('goes on while the command runs, or has not begun yet', () => {
    expect(outcomeOf({ phase: 'running' }, usual)).toBeUndefined();
    expect(outcomeOf({ phase: 'absent' }, { confirmed: false, cancelled: false })).toBeUndefined();
  });

  it('is unknown when the guest lost track of it, and quarantined unless a new boot has cleared it away', () => {
    expect(outcomeOf({ phase: 'absent' }, usual)).toMatchObject({ state: 'unknown', quarantine: true });
    expect(outcomeOf({ phase: 'lost', reason: 'reverted' }, usual)).toMatchObject({
      state: 'unknown',
      quarantine: true,
    });
    expect(outcomeOf({ phase: 'lost', reason: 'supervisor_died' }, usual)).toMatchObject({
      quarantine: true,
    });
    expect(outcomeOf({ phase: 'lost', reason: 'rebooted' }, usual)).toMatchObject({
      state: 'unknown',
      quarantine: false,
      error: { code: 'guest_rebooted' },
    });
  });

  it('says why the guest refused it', () => {
    const refused = (reason: 'tombstone' | 'no_space' | 'bad_working_directory') =>
      outcomeOf({ phase: 'refused', reason }, usual);
    expect(refused('tombstone')).toEqual({ state: 'timed_out' });
    expect(outcomeOf({ phase: 'refused', reason: 'tombstone' }, cancelled)).toEqual({ state: 'cancelled' });
    expect(refused('no_space')).toMatchObject({ state: 'failed', error: { code: 'guest_out_of_space' } });
    expect(refused('bad_working_directory')).toMatchObject({
      state: 'failed',
      error: { code: 'invalid_arguments' },
    });
  });
});

describe('a guest that does not answer', () => {
  const known = { off: false, sent: false, silentMs: 59_000, timeoutSeconds: 1 };

  it('is waited for a minute before a command is said not to have started, however little time that has', () => {
    expect(outcomeOfSilence(known)).toBeUndefined();
    expect(() => outcomeOfSilence({ ...known, silentMs: 61_000 })).toThrow('was not started');
    expect(() => outcomeOfSilence({ ...known, off: true })).toThrow('was not started');
  });

  it('leaves the end of a command unknown that it may have got, once that must have ended', () => {
    const sent = { ...known, sent: true, timeoutSeconds: 60 };
    expect(outcomeOfSilence({ ...sent, silentMs: 179_000 })).toBeUndefined();
    expect(outcomeOfSilence({ ...sent, silentMs: 181_000 })).toMatchObject({
      state: 'unknown',
      quarantine: true,
    });
    expect(outcomeOfSilence({ ...sent, off: true })).toMatchObject({ state: 'unknown', quarantine: false });
  });
});
