import { Injectable } from '@nestjs/common';
import { redact, redactText, type AppError, type ErrorCode } from '@longhaul/errors';
import { Database, Prisma, batched, type AuditEvent, type RawSql } from '@longhaul/persistence';
import { exportAudit, searchAudit, type AuditFilter, type AuditPage } from './search.js';

/** One event of the audit. Arguments are redacted and bounded here, whoever wrote them. */
export interface AuditEntry {
  event:
    | 'job.submitted'
    | 'job.answered'
    | 'job.cancel_requested'
    | 'job.finished'
    | 'artifact.upload'
    | 'artifact.download'
    | 'call';
  userId?: string | null;
  tokenId?: string | null;
  /** Of OAuth. */
  clientId?: string | null;
  projectId?: string | null;
  vmId?: string | null;
  jobId?: string | null;
  tool?: string;
  arguments?: unknown;
  /** `ok`, `asked` (the client is to answer first), `refused` (a gate said no), `failed`; for a job its final state. */
  result?: string;
  code?: string | null;
  durationMs?: number;
  requestId?: string | null;
  /** Of the W3C trace context that the client sent. */
  traceId?: string;
  /** Of a call that needed a confirmation. */
  confirmedBy?: 'person' | 'argument';
  clientName?: string;
  clientVersion?: string;
  ip?: string;
  userAgent?: string;
}

/** Our own failures; any other error is a refusal. */
const FAULTS = new Set<ErrorCode>(['internal', 'unavailable']);

/** The `result` of a call, by how it ended. */
export const resultOf = (error: AppError | undefined): 'ok' | 'refused' | 'failed' =>
  !error ? 'ok' : FAULTS.has(error.code) ? 'failed' : 'refused';

const GROUP_LIMIT = 200;
/** Characters of JSON kept of a call's arguments: an audit must not be a way to fill the disk. */
const ARGUMENTS_MAX = 16_384;

@Injectable()
export class Audit {
  /**
   * Resolves once the event is committed. Calls that arrive while a write is under way share the next one (group commit).
   */
  readonly record: (entry: AuditEntry) => Promise<unknown>;

  constructor(private readonly db: Database) {
    this.record = batched(async (entries) => {
      await db.rows(insert(entries));
      return entries;
    }, GROUP_LIMIT);
  }

  /** Writes the event in the caller's transaction, so that state and event stand or fall together. */
  async write(tx: RawSql, entry: AuditEntry): Promise<void> {
    await tx.$executeRaw(insert([entry]));
  }

  /** See `searchAudit`. */
  search(filter: AuditFilter, page?: { limit?: number; cursor?: string }): Promise<AuditPage> {
    return searchAudit(this.db, filter, page);
  }

  /** See `exportAudit`. */
  export(filter: AuditFilter): AsyncGenerator<AuditEvent> {
    return exportAudit(this.db, filter);
  }
}

/**
 * One statement of one form for any number of events, as this runs with every call. The customer is whose project it is now;
 * later moves do not rewrite history.
 */
function insert(entries: AuditEntry[]): Prisma.Sql {
  return Prisma.sql`
    INSERT INTO audit_events (event, user_id, token_id, client_id, project_id, vm_id, job_id, tool, arguments, result, code,
      duration_ms, request_id, trace_id, confirmed_by, client_name, client_version, ip, user_agent, customer)
    SELECT *, (SELECT customer FROM projects WHERE id = entry."projectId")
    FROM jsonb_to_recordset(${JSON.stringify(entries.map(toRow))}::jsonb) AS entry (event text, "userId" uuid,
      "tokenId" uuid, "clientId" text, "projectId" uuid, "vmId" uuid, "jobId" uuid, tool text, arguments jsonb,
      result text, code text, "durationMs" int, "requestId" text, "traceId" text, "confirmedBy" text,
      "clientName" text, "clientVersion" text, ip text, "userAgent" text)`;
}

/** What is undefined is not in its JSON. */
function toRow(entry: AuditEntry): AuditEntry {
  const { arguments: args, userAgent, clientName, clientVersion } = entry;
  return {
    ...entry,
    arguments: args === undefined ? undefined : bounded(redact(args)),
    userAgent: userAgent && redactText(userAgent, 256),
    clientName: clientName && redactText(clientName, 128),
    clientVersion: clientVersion && redactText(clientVersion, 64),
  };
}

function bounded(args: unknown): unknown {
  const text = JSON.stringify(args);
  return text.length <= ARGUMENTS_MAX ? args : { cut: redactText(text, ARGUMENTS_MAX) };
}
