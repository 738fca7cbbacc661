import { AppError } from '@longhaul/errors';
import { AgentRefusal, parseAnswer, type ProtocolViolation } from '@longhaul/guest/agent/answers';
import type { AgentCalls } from '@longhaul/guest/agent/calls';
import { NoDomain, VirshRefusal, type Virsh } from './virsh.js';

/** libvirt waits for the agent in whole seconds; virsh itself needs some of the time on a busy host. */
const VIRSH_MS = 10_000;

/**
 * The agent of a domain. libvirt holds its socket and passes calls on, after a sync of its own. Each call is an argument of a
 * process, which may have 128 KiB.
 */
export class LibvirtAgent implements AgentCalls {
  readonly maxDataBytes = 64 * 1024;
  private failure: AppError | undefined;
  private readonly closing = new AbortController();
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly virsh: Virsh,
    private readonly id: string,
    private readonly answerMs: number,
    over: AbortSignal,
  ) {
    over.addEventListener('abort', () => this.close());
  }

  call(command: string, args?: Record<string, unknown>): Promise<unknown> {
    const done = this.last.then(() => this.send(command, args));
    this.last = done.catch(() => undefined);
    return done;
  }

  violated(violation: ProtocolViolation): AppError {
    return this.fail(`sent ${violation.message}`, violation);
  }

  close(): void {
    this.fail('was left');
  }

  private async send(command: string, args?: Record<string, unknown>): Promise<unknown> {
    if (this.failure) throw this.failure;
    const text = JSON.stringify({ execute: command, arguments: args });
    const seconds = Math.ceil(this.answerMs / 1000);
    const words = ['qemu-agent-command', '--domain', this.id, '--timeout', `${seconds}`, '--cmd', text];
    const timeoutMs = this.answerMs + VIRSH_MS;
    let answer: string;
    try {
      answer = await this.virsh.run(words, { timeoutMs, signal: this.closing.signal });
    } catch (error) {
      const said = error instanceof VirshRefusal ? error.message : '';
      const refusal = /unable to execute QEMU agent command '[^']*': (.*)/s.exec(said)?.[1];
      if (refusal) throw new AgentRefusal(refusal);
      throw this.fail(
        error instanceof NoDomain ? 'has no machine' : `did not answer ${command}: ${said}`,
        error,
      );
    }
    try {
      return parseAnswer(Buffer.from(answer));
    } catch (error) {
      throw this.violated(error as ProtocolViolation);
    }
  }

  private fail(what: string, cause?: unknown): AppError {
    this.failure ??= new AppError(
      'guest_unreachable',
      `The VM's guest agent ${what}. Try again.`,
      undefined,
      {
        cause,
      },
    );
    this.closing.abort();
    return this.failure;
  }
}
