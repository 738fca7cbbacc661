import { AppError } from '@longhaul/errors';
import { printable } from '../agent/answers.js';
import type { GuestProgram, GuestProgramResult, GuestSession } from '../channel.js';
import type { SshConnection } from './connection.js';
import { Exchange } from './exchange.js';
import { readBySftp } from './files.js';
import { programScript, READ_FILE, SET_TIME, spawnScript, withArguments, WRITE_FILE } from './scripts.js';

const MIB = 1024 * 1024;
const MAX_READ = 16 * MIB;
const NOT_THERE = 66;
/** The slowest line that is worth waiting for, bytes a millisecond. */
const SLOWEST = 100;

/** GuestSession over a login. Each call is a shell of its own on the machine, as root. */
export class SshSession implements GuestSession {
  private ended = false;

  constructor(
    private readonly connection: SshConnection,
    private readonly isRoot: boolean,
    private readonly answerMs: number,
  ) {}

  /** Every later call rejects; what is under way is no longer waited for. */
  end(): void {
    this.ended = true;
  }

  async ping(): Promise<void> {
    await this.do(withArguments('', []));
  }

  async spawn(program: GuestProgram): Promise<{ pid: number }> {
    const { pid } = await this.exchange(spawnScript(program), program.stdin).end(this.answerMs, 0);
    return { pid };
  }

  async run(program: GuestProgram, timeoutMs: number): Promise<GuestProgramResult> {
    return this.exchange(programScript(program), program.stdin).end(timeoutMs, MIB);
  }

  async readFile(
    path: string,
    offset: number,
    maxBytes: number,
  ): Promise<{ data: Buffer; eof: boolean } | undefined> {
    if (!(maxBytes >= 1 && maxBytes <= MAX_READ)) throw new Error(`Cannot read ${maxBytes} bytes at once`);
    // One byte more tells whether something follows.
    const data = await this.read(path, offset, maxBytes + 1);
    return data && { data: data.subarray(0, maxBytes), eof: data.length <= maxBytes };
  }

  async writeFile(path: string, data: Buffer): Promise<void> {
    await this.do(withArguments(WRITE_FILE, [path]), data);
  }

  async setTime(now: Date): Promise<void> {
    await this.do(withArguments(SET_TIME, [`${now.getTime() / 1000}`]));
  }

  private async read(path: string, offset: number, maxBytes: number): Promise<Buffer | undefined> {
    const timeoutMs = this.answerMs + maxBytes / SLOWEST;
    this.check();
    // The server of somebody else may not read all that root may.
    if (!this.isRoot) return this.readByShell(path, offset, maxBytes, timeoutMs);
    return this.connection.files(this.answerMs, (sftp) => {
      if (!sftp) return this.readByShell(path, offset, maxBytes, timeoutMs);
      return this.connection.within(readBySftp(sftp, path, offset, maxBytes), timeoutMs, 'send a file');
    });
  }

  private async readByShell(path: string, offset: number, maxBytes: number, timeoutMs: number) {
    const script = withArguments(READ_FILE, [path, `${offset}`, `${maxBytes}`]);
    const { exitCode, stdout, stderr } = await this.exchange(script).end(timeoutMs, maxBytes);
    if (exitCode === 0) return stdout;
    // A process may have ended after its file was opened.
    if (exitCode === NOT_THERE || /No such (file|process)/.test(stderr.toString())) return undefined;
    throw refusal('a file could not be read', stderr);
  }

  private async do(script: string, stdin: Buffer = Buffer.alloc(0)): Promise<void> {
    const timeoutMs = this.answerMs + stdin.length / SLOWEST;
    const { exitCode, stderr } = await this.exchange(script, stdin).end(timeoutMs, MIB);
    if (exitCode !== 0) throw refusal('it refused to work', stderr);
  }

  private exchange(script: string, stdin?: Buffer): Exchange {
    if (this.ended) throw new AppError('guest_unreachable', 'The VM, by SSH, was left. Try again.');
    return new Exchange(this.connection, this.isRoot, this.answerMs, script, stdin);
  }

  private check(): void {
    if (this.ended) throw new AppError('guest_unreachable', 'The VM, by SSH, was left. Try again.');
  }
}

function refusal(what: string, stderr: Buffer): AppError {
  const said = stderr.toString('utf8').trim();
  if (/No space left/.test(said))
    return new AppError('guest_out_of_space', 'The disk of the VM is full. Free some space.');
  return new AppError('guest_unreachable', `The VM, by SSH: ${what}: ${printable(said)}`);
}
