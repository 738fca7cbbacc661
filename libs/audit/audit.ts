import { Injectable } from '@nestjs/common';
import { redact, redactText } from '@longhaul/errors';
import { Database, type Prisma, type Transaction } from '@longhaul/persistence';

/** One event of the audit. Arguments are redacted and bounded here, whoever wrote them. */
export interface AuditEntry {
  event: 'job.submitted' | 'job.cancel_requested' | 'job.finished' | 'call';
  userId?: string | null;
  tokenId?: string | null;
  projectId?: string | null;
  vmId?: string | null;
  jobId?: string | null;
  tool?: string;
  arguments?: unknown;
  /** `ok`, `refused` (a gate said no), `failed`; for a job its final state. */
  result?: string;
  code?: string | null;
  durationMs?: number;
  requestId?: string | null;
  clientName?: string;
  clientVersion?: string;
  ip?: string;
  userAgent?: string;
}

interface Waiting {
  entry: AuditEntry;
  resolve: () => void;
  reject: (error: unknown) => void;
}

const GROUP_LIMIT = 200;
/** Characters of JSON kept of a call's arguments: an audit must not be a way to fill the disk. */
const ARGUMENTS_MAX = 16_384;

@Injectable()
export class Audit {
  private waiting: Waiting[] = [];
  private writing = false;

  constructor(private readonly db: Database) {}

  /** Writes the event in the caller's transaction, so that state and event stand or fall together. */
  async write(tx: Transaction, entry: AuditEntry): Promise<void> {
    await tx.auditEvent.create({ data: toRow(entry) });
  }

  /**
   * Resolves once the event is committed. Calls that arrive while a write is under way share the next one (group commit),
   * so that a busy API pays one commit for many calls and an idle one waits for nothing.
   */
  record(entry: AuditEntry): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ entry, resolve, reject });
      if (!this.writing) void this.drain();
    });
  }

  private async drain() {
    this.writing = true;
    while (this.waiting.length > 0) {
      const group = this.waiting.splice(0, GROUP_LIMIT);
      try {
        await this.db.auditEvent.createMany({ data: group.map(({ entry }) => toRow(entry)) });
        group.forEach(({ resolve }) => resolve());
      } catch (error) {
        group.forEach(({ reject }) => reject(error));
      }
    }
    this.writing = false;
  }
}

function toRow(entry: AuditEntry): Prisma.AuditEventCreateManyInput {
  const { arguments: args, userAgent, clientName, clientVersion, ...rest } = entry;
  return {
    ...rest,
    ...(args !== undefined && { arguments: bounded(redact(args)) }),
    ...(userAgent && { userAgent: redactText(userAgent, 256) }),
    ...(clientName && { clientName: redactText(clientName, 128) }),
    ...(clientVersion && { clientVersion: redactText(clientVersion, 64) }),
  };
}

function bounded(args: unknown): Prisma.InputJsonValue {
  const text = JSON.stringify(args);
  const kept = text.length <= ARGUMENTS_MAX ? args : { cut: redactText(text, ARGUMENTS_MAX) };
  return kept as Prisma.InputJsonValue;
}
