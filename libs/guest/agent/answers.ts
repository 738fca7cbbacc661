/** Starts a message afresh: the byte is not part of any JSON text, so that it ends whatever half line came before. */
export const SENTINEL = 0xff;
const NEWLINE = 0x0a;

/** The guest broke the protocol; the connection cannot be used any more. */
export class ProtocolViolation extends Error {}

/** The agent is fine and answered an error to one request. */
export class AgentRefusal extends Error {}

/**
 * Cuts what the guest sends into lines. Skips everything up to the first sentinel, which may be the rest of an answer
 * to somebody who left. Keeps at most `maxLineBytes`; a longer line throws ProtocolViolation.
 */
export class LineReader {
  private parts: Buffer[] = [];
  private size = 0;
  private skipping = true;

  constructor(private readonly maxLineBytes: number) {}

  push(chunk: Buffer): Buffer[] {
    const sentinel = chunk.lastIndexOf(SENTINEL);
    if (sentinel >= 0) {
      this.skipping = false;
      this.clear();
      chunk = chunk.subarray(sentinel + 1);
    }
    if (this.skipping) return [];

    const lines: Buffer[] = [];
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE)) {
      this.keep(chunk.subarray(0, end));
      lines.push(Buffer.concat(this.parts));
      this.clear();
      chunk = chunk.subarray(end + 1);
    }
    this.keep(chunk);
    return lines;
  }

  private keep(part: Buffer): void {
    this.size += part.length;
    if (this.size > this.maxLineBytes)
      throw new ProtocolViolation(`a line of more than ${this.maxLineBytes} bytes`);
    if (part.length > 0) this.parts.push(part);
  }

  private clear(): void {
    this.parts = [];
    this.size = 0;
  }
}

/** The `return` value of one answer, or the agent's error. Throws ProtocolViolation for nonsense. */
export function parseAnswer(line: Buffer): unknown {
  const answer = parseJson(line);
  if (isRecord(answer) && 'return' in answer) return answer['return'];
  if (isRecord(answer) && isRecord(answer['error']))
    return new AgentRefusal(printable(answer['error']['desc']));
  throw new ProtocolViolation('a line that is no answer');
}

function parseJson(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString('utf8'));
  } catch {
    throw new ProtocolViolation('a line that is not JSON');
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The field as a whole number of at least 0. */
export function countField(answer: unknown, name: string): number {
  const value = isRecord(answer) ? answer[name] : undefined;
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    throw new ProtocolViolation(`no number "${name}"`);
  return value as number;
}

/** The decoded field of at most `maxBytes`; empty when it is absent, as the agent leaves empty ones out. */
export function base64Field(answer: unknown, name: string, maxBytes: number): Buffer {
  const text = isRecord(answer) ? (answer[name] ?? '') : undefined;
  if (typeof text !== 'string' || text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
    throw new ProtocolViolation(`no base64 text "${name}"`);
  }
  const data = Buffer.from(text, 'base64');
  if (data.length > maxBytes) throw new ProtocolViolation(`more in "${name}" than was asked for`);
  return data;
}

export function printable(text: unknown): string {
  // Not String: a value of JSON may have a toString of its own.
  return (typeof text === 'string' ? text : (JSON.stringify(text) ?? ''))
    .slice(0, 300)
    .replace(/[\x00-\x1f\x7f]/g, ' ');
}
