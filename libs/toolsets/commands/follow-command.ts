import { setTimeout as pause } from 'node:timers/promises';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import {
  cancelCommand,
  dispatchCommand,
  isDueAgain,
  pollCommand,
  type CommandPoll,
  type GuestSession,
  type ShortCommand,
} from '@longhaul/guest';
import type { LogWriter } from '@longhaul/job-log';
import type { Outcome, Progress } from '@longhaul/jobs';
import { isOff, type VmProvider } from '@longhaul/vm-providers';
import { traced } from '@longhaul/telemetry';
import type { JobContext } from '../handler.js';
import { currentEpoch } from '../vms/epoch.js';
import { outcomeOf, outcomeOfSilence, outcomeUnknown, OVERTIME_MS } from './outcome.js';
import type { VmCommandPayload } from './vm-command.job.js';

/** The guest is asked often while something happens, less and less often while nothing does. */
const POLL_MIN_MS = 10;
/** Rests of this many times what a look took: looks cost the guest as well, an emulated one some ten milliseconds each. */
const REST_PER_LOOK = 3;
const POLL_MAX_MS = 1_000;
/** Short, as others wait for the guest meanwhile. */
const SESSION_MS = 700;
/** Of a command that was just sent only the end is asked for at first: looks would take the guest longer than it does. */
const SHORT_MS = 400;
const SHORT_POLL_MS = 8;
/** What the quickest commands took lately. Questions cost the guest, so the first one comes when that is nearly over. */
let quickestMs = 0;
const CHUNK_BYTES = 256 * 1024;
const CATCH_UP_BYTES = 1024 * 1024;
const CANCEL_GRACE_SECONDS = 5;

const GUEST = { kind: 'client' } as const;

/** What is known of the dispatch; `confirmed` says that the guest was seen to have got it. */
export interface Dispatch {
  /** Of the intent, once there is one. */
  epoch?: string;
  confirmed: boolean;
  /** Since when the guest may have got it, as far as this attempt knows, by `performance.now()`. Infinity: it has not. */
  firstSentAt: number;
}

/** Dispatches the command where needed and copies its output to `logs` until its end is known and every byte of it is stored. */
export function followCommand(
  context: JobContext,
  payload: VmCommandPayload,
  provider: VmProvider,
  dispatch: Dispatch,
  logs: { stdout: LogWriter; stderr: LogWriter },
): Promise<Outcome> {
  return new Follower(context, payload, provider, dispatch, logs.stdout, logs.stderr).run();
}

class Follower {
  private readonly begun = performance.now();
  private readonly vmId: string;
  private chunk = CHUNK_BYTES;
  private wait = POLL_MIN_MS;
  private reachedAt = performance.now();
  private dispatchedAt = -Infinity;
  private cancelledAt = -Infinity;
  /** When the guest first heard that the command must end now. */
  private toldInOvertimeAt = Infinity;

  constructor(
    private readonly context: JobContext,
    private readonly payload: VmCommandPayload,
    private readonly provider: VmProvider,
    private readonly dispatch: Dispatch,
    private readonly stdout: LogWriter,
    private readonly stderr: LogWriter,
  ) {
    this.vmId = context.job.vmId!;
  }

  async run(): Promise<Outcome> {
    for (;;) {
      this.context.stop.throwIfAborted();
      const poll = await this.look();
      const outcome = poll ? await this.take(poll) : await this.givenUp();
      this.tell();
      // A crash of PostgreSQL takes the last moments of a log, which the guest still has for another attempt.
      if (outcome) return { ...outcome, log: { stdout: this.stdout.size, stderr: this.stderr.size } };
      if (this.chunk === CHUNK_BYTES) await this.rest();
    }
  }

  /**
   * One session with the guest: send what is to be sent, then ask. While things happen it asks again in the same session,
   * as opening one costs more than asking. Undefined when the guest could not be reached.
   */
  private async look(): Promise<CommandPoll | undefined> {
    const { job, stop, cancel } = this.context;
    try {
      return await this.provider.guest(this.vmId).session(
        async (guest) => {
          const isFirst = !this.dispatch.confirmed;
          const { epoch, sent } = await this.send(guest);
          const short = sent && (await this.awaitShort(sent));
          if (short) return short;
          const until = performance.now() + (this.wait < POLL_MAX_MS ? SESSION_MS : 0);
          for (;;) {
            const offsets = { stdout: this.stdout.size, stderr: this.stderr.size };
            const askedAt = performance.now();
            const poll = await pollCommand(guest, job.id, epoch, offsets, this.chunk);
            this.reachedAt = performance.now();
            const { phase } = poll.state;
            const isPending = phase === 'running' || phase === 'absent';
            const isNews = !isPending || poll.stdout.length + poll.stderr.length > 0;
            const isOver = this.reachedAt > until || (cancel.aborted && isDueAgain(this.cancelledAt));
            // A short command ends in the session that started it: its output does not cost another one.
            if (isNews && isPending && isFirst && !isOver) await this.take(poll);
            else if (isNews || isOver) return poll;
            const restMs = Math.max(POLL_MIN_MS, REST_PER_LOOK * (this.reachedAt - askedAt));
            await pause(Math.min(restMs, SESSION_MS), undefined, { signal: stop });
          }
        },
        { signal: stop },
      );
    } catch (error) {
      stop.throwIfAborted();
      if (error instanceof AppError && (error.code === 'guest_unreachable' || error.code === 'unavailable'))
        return undefined;
      throw error;
    }
  }

  /** Commits the intent, then dispatches; or cancels. What was sent long ago without effect is sent again. */
  private async send(guest: GuestSession): Promise<{ epoch: string; sent?: ShortCommand }> {
    const { job, ref, attempts, db, cancel, logLimitBytes } = this.context;
    if (!this.dispatch.epoch) {
      const epoch = await currentEpoch(db, this.vmId, this.provider, guest);
      await attempts.intend(ref, 'dispatch', epoch);
      this.dispatch.epoch = epoch;
    }
    const { epoch } = this.dispatch;
    let sent: ShortCommand | undefined;
    const mustEnd = () => cancel.aborted || this.isOvertime();
    if (!this.dispatch.confirmed && !mustEnd() && isDueAgain(this.dispatchedAt)) {
      failpoint('before-dispatch');
      this.dispatch.firstSentAt = Math.min(this.dispatch.firstSentAt, performance.now());
      const { command, timeout_seconds: timeoutSeconds, working_directory: workingDirectory } = this.payload;
      const spec = {
        id: job.id,
        epoch,
        command,
        timeoutSeconds,
        workingDirectory,
        streamLimitBytes: logLimitBytes,
      };
      sent = await traced('guest start command', GUEST, () => dispatchCommand(guest, spec));
      failpoint('dispatched');
      this.dispatchedAt = performance.now();
    }
    if (mustEnd() && isDueAgain(this.cancelledAt)) {
      await traced('guest cancel command', GUEST, () =>
        cancelCommand(guest, job.id, epoch, CANCEL_GRACE_SECONDS),
      );
      this.cancelledAt = performance.now();
      if (this.isOvertime()) this.toldInOvertimeAt = Math.min(this.toldInOvertimeAt, this.cancelledAt);
    }
    return { epoch, sent };
  }

  /** Undefined when it takes longer, or printed more. */
  private async awaitShort(ended: ShortCommand): Promise<CommandPoll | undefined> {
    const { stop, cancel } = this.context;
    const sentAt = performance.now();
    let waitMs = Math.max(SHORT_POLL_MS, 0.7 * quickestMs);
    for (let tookMs = 0; tookMs < SHORT_MS && !cancel.aborted; waitMs = SHORT_POLL_MS) {
      await pause(waitMs, undefined, { signal: stop });
      const poll = await ended();
      this.reachedAt = performance.now();
      tookMs = this.reachedAt - sentAt;
      if (poll === 'look') return undefined;
      if (poll) quickestMs = Math.min(tookMs, 1.2 * quickestMs + SHORT_POLL_MS);
      if (poll) return poll;
    }
    return undefined;
  }

  /** Stores what a look has brought; answers the outcome once nothing more can come. */
  private async take(poll: CommandPoll): Promise<Outcome | undefined> {
    const { state } = poll;
    const stored = [this.stdout.write(poll.stdout), this.stderr.write(poll.stderr)];
    if (!this.dispatch.confirmed && state.phase !== 'absent' && state.phase !== 'lost') {
      stored.push(this.context.attempts.confirm(this.context.ref, 'dispatch'));
      this.dispatch.confirmed = true;
    }
    // Somebody may wait for the end.
    if (state.phase === 'ended') stored.push(this.stdout.flush());
    await Promise.all(stored);
    if (poll.stdout.length > 0) failpoint('appended');

    const brought = Math.max(poll.stdout.length, poll.stderr.length);
    this.chunk = brought === this.chunk ? CATCH_UP_BYTES : CHUNK_BYTES;
    if (brought > 0 || state.phase !== 'running') this.wait = POLL_MIN_MS;
    // After a reset the disk may still have output of before.
    if (state.phase === 'lost' && brought > 0) return undefined;
    if (state.phase === 'ended') {
      if (this.stdout.size < state.stdoutBytes || this.stderr.size < state.stderrBytes) return undefined;
      await Promise.all([
        this.stdout.setDropped(state.stdoutDropped),
        this.stderr.setDropped(state.stderrDropped),
      ]);
    }
    const outcome = outcomeOf(state, {
      confirmed: this.dispatch.confirmed,
      cancelled: this.context.cancel.aborted,
    });
    if (outcome) failpoint('before-finish');
    const isDeaf = performance.now() - this.toldInOvertimeAt > OVERTIME_MS;
    return (
      outcome ?? (isDeaf ? outcomeUnknown('The command did not end when it was told to.', true) : undefined)
    );
  }

  /** The guest did not answer. Answers the outcome when it never will: the machine is off, or silent for too long. */
  private async givenUp(): Promise<Outcome | undefined> {
    return outcomeOfSilence({
      off: isOff(await this.provider.observe(this.vmId)),
      sent: this.dispatch.firstSentAt < Infinity,
      silentMs: performance.now() - this.reachedAt,
      timeoutSeconds: this.payload.timeout_seconds,
    });
  }

  private tell(): void {
    const { deadlineAt, runSeconds, startedAt } = this.context.job;
    // Earlier attempts count by the database's clock, which also began this one's deadline: workers' clocks differ.
    const earlierMs = deadlineAt.getTime() - runSeconds * 1000 - startedAt!.getTime();
    const seconds = Math.floor((earlierMs + performance.now() - this.begun) / 1000);
    const bytes = this.stdout.size + this.stderr.size;
    this.context.progress(progressOf(seconds, this.payload.timeout_seconds, bytes));
  }

  private isOvertime(): boolean {
    return performance.now() - this.dispatch.firstSentAt > this.payload.timeout_seconds * 1000 + OVERTIME_MS;
  }

  private async rest(): Promise<void> {
    const { stop, cancel } = this.context;
    const signal = cancel.aborted ? stop : AbortSignal.any([stop, cancel]);
    await pause(this.wait, undefined, { signal }).catch(() => undefined);
    this.wait = Math.min(this.wait * 1.5, POLL_MAX_MS);
  }
}

/** In seconds, of which a command has at most `total`. */
export function progressOf(seconds: number, total: number, outputBytes: number): Progress {
  const message = `${seconds} s, ${readable(outputBytes)} of output`;
  return { progress: Math.min(seconds, total), total, message };
}

function readable(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 4);
  const value = bytes / 1000 ** power;
  return `${power > 0 ? value.toFixed(1) : value} ${['B', 'kB', 'MB', 'GB', 'TB'][power]}`;
}
