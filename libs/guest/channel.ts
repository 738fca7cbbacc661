/**
 * How a worker acts inside one VM. Over all processes of this host only one session per VM exists at a time, so
 * sessions are short: look, act, leave. Opening one can take 100 ms, the time that a QEMU guest agent sleeps between
 * two looks for somebody to talk to, so do together what belongs together.
 */
export abstract class GuestChannel {
  /**
   * Waits for exclusive access, connects, runs `use`, disconnects. The `GuestSession` is dead once this returns.
   * Errors: `unavailable` when access was not granted within `waitMs` or the session lasts longer than `holdMs`;
   * `guest_unreachable` when nothing in the guest answers, or answers nonsense; what `use` throws.
   */
  abstract session<T>(use: (guest: GuestSession) => Promise<T>, options?: SessionOptions): Promise<T>;
}

export interface SessionOptions {
  /** How long to wait for exclusive access, milliseconds. Default 10 s. */
  waitMs?: number;
  /** How long the session may last, milliseconds; others may evict it afterwards. Default 15 s. */
  holdMs?: number;
  /** Ends the wait or the session at once; the session's promise is rejected with its reason. */
  signal?: AbortSignal;
}

export interface GuestSession {
  ping(): Promise<void>;
  /** Starts a program without waiting for it. A lost answer never means that it did not start. */
  spawn(program: GuestProgram): Promise<Spawned>;
  /** Runs a short program to its end. More than 1 MiB of output, or no end within `timeoutMs`, is `guest_unreachable`. */
  run(program: GuestProgram, timeoutMs: number): Promise<GuestProgramResult>;
  /**
   * At most `maxBytes` (up to 16 MiB) from `offset`; undefined when the file does not exist, as that of a process that
   * ended. `eof`: nothing follows now.
   */
  readFile(
    path: string,
    offset: number,
    maxBytes: number,
  ): Promise<{ data: Buffer; eof: boolean } | undefined>;
  /** Creates or replaces the content. Not atomic: a reader may see a part. */
  writeFile(path: string, data: Buffer): Promise<void>;
  setTime(now: Date): Promise<void>;
}

export interface Spawned {
  pid: number;
  /** In this session: undefined while it runs, its end once. Missing where the guest cannot tell: its output is lost then. */
  result?(): Promise<GuestProgramResult | undefined>;
}

/** `path` is looked up in the guest's PATH when it has no slash. Each argument stays under 128 KiB (a limit of Linux). */
export interface GuestProgram {
  path: string;
  args?: string[];
  /** Without it the program reads an empty input. */
  stdin?: Buffer;
  /** Replaces the whole environment. */
  env?: Record<string, string>;
}

export interface GuestProgramResult {
  /** 128 + n when signal n ended it, as a shell reports it. */
  exitCode: number;
  stdout: Buffer;
  stderr: Buffer;
}
