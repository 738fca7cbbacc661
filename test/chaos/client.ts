import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { modernRequest } from '../support/tasks.js';

export type Answer = Record<string, unknown> & { code?: string; retryable?: boolean; isError: boolean };

/** Longer than any tool takes to answer: whoever waits longer speaks with a process that is stopped. */
const PATIENCE_MS = 65_000;

/** Calls tools as a careful client does: what was not answered, and what may be repeated, it tries again. */
export class CarefulClient {
  /** Ids of the requests that were answered, which the audit must know. */
  readonly answered = new Set<string>();
  /** How often each code was answered; `-` for requests without an answer. */
  readonly codes = new Map<string, number>();

  /** Called with each answer that `call` gives. */
  onAnswer = () => {};

  constructor(
    private readonly url: string,
    /** When no request is worth another try. */
    private readonly over: AbortSignal,
  ) {}

  /** Answers what the tool says, or an error that no repetition will change. Throws when the time is over. */
  async call(token: string, name: string, args: object): Promise<Answer> {
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 1.7, 3_000)) {
      this.over.throwIfAborted();
      const answer = await this.ask(token, name, args).catch(() => undefined);
      const code = answer ? (answer.isError ? (answer.code ?? '?') : 'ok') : '-';
      this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
      if (answer && !(answer.isError && answer.retryable)) {
        this.onAnswer();
        return answer;
      }
      await pause(waitMs, undefined, { signal: this.over }).catch(() => undefined);
    }
  }

  private async ask(token: string, name: string, args: object): Promise<Answer | undefined> {
    const id = randomUUID();
    const { method, headers, body } = modernRequest(token, 'tools/call', { name, arguments: args }, {});
    const response = await fetch(this.url, {
      method,
      headers: { ...headers, 'x-request-id': id },
      body,
      signal: AbortSignal.any([this.over, AbortSignal.timeout(PATIENCE_MS)]),
    });
    const text = await response.text();
    if (!response.ok) {
      this.codes.set(`HTTP ${response.status}`, (this.codes.get(`HTTP ${response.status}`) ?? 0) + 1);
      return undefined;
    }
    const { result, error } = JSON.parse(text.startsWith('{') ? text : text.split('data: ').at(-1)!) as {
      result?: {
        isError?: boolean;
        structuredContent?: Record<string, unknown>;
        content: [{ text: string }];
      };
      error?: { code: number; message: string };
    };
    if (!result) return { code: `${error?.code}: ${error?.message}`, isError: true };
    const said =
      result.structuredContent ??
      (JSON.parse(result.content[0].text) as { error: Record<string, unknown> }).error;
    const answer = { ...said, isError: result.isError === true && !result.structuredContent } as Answer;
    // What says that it could not be audited is not in the audit.
    if (!(answer.isError && answer.code === 'unavailable')) this.answered.add(id);
    return answer;
  }
}
