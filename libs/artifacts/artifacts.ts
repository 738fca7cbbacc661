import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import { Inject, Injectable } from '@nestjs/common';
import type { Caller } from '@longhaul/access';
import { Audit, type AuditEntry } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { AppError } from '@longhaul/errors';
import { Database, camelKeys, newId, parseId, type Artifact, type Vm } from '@longhaul/persistence';
import type { ArtifactsConfig } from './config.js';
import { artifactExpired, artifactNotFound, notUploaded, shaMismatch, sizeMismatch } from './failures.js';
import { ArtifactStore } from './store.js';

export const UPLOAD_MINUTES = 15;
/** An upload that began in time may take this long; its row stays until then. */
export const UPLOAD_GRACE_MINUTES = 60;
/** Of one project. */
const PENDING_MAX = 100;
const KEPT_MAX = 10_000;
/** Contents that one process reads at once to compare their digests. */
const COMPARED_AT_ONCE = 4;

export type ArtifactState = 'pending' | 'uploaded' | 'expired';

export type Announced = Pick<Artifact, 'filename' | 'purpose' | 'sha256'> & { sizeBytes: number };

/** What the audit says about an upload or a download beside the artifact itself. */
export type Trace = Pick<AuditEntry, 'requestId' | 'ip' | 'userAgent' | 'jobId' | 'durationMs'>;

/** The rows of artifacts, and what they say about the bytes in the store. */
@Injectable()
export class Artifacts {
  private readonly comparing = new Map<string, Promise<void>>();

  constructor(
    private readonly db: Database,
    private readonly audit: Audit,
    readonly store: ArtifactStore,
    @Inject(CONFIG) private readonly config: ArtifactsConfig,
  ) {}

  /**
   * A new one of the VM, to be uploaded in the next 15 minutes. Errors: `rate_limited` while the project
   * has as many as one may have, `quota_exceeded` when they would take more space than they may.
   */
  async announce(vm: Pick<Vm, 'id' | 'projectId'>, userId: string, announced: Announced): Promise<Artifact> {
    const { projectId } = vm;
    const uploadUntil = await this.inMinutes(UPLOAD_MINUTES);
    const expiresAt = new Date(uploadUntil.getTime() + UPLOAD_GRACE_MINUTES * 60_000);
    return this.db.$transaction(async (tx) => {
      // Of two that come at once the second one counts the first.
      await tx.$queryRaw`SELECT FROM projects WHERE id = ${projectId}::uuid FOR NO KEY UPDATE`;
      const [held] = await tx.$queryRaw<{ pending: bigint; kept: bigint; bytes: bigint }[]>`
        SELECT count(*) FILTER (WHERE uploaded_at IS NULL) AS pending, count(*) AS kept,
          coalesce(sum(size_bytes), 0)::bigint AS bytes
        FROM artifacts WHERE project_id = ${projectId}::uuid AND expires_at > now()`;
      this.requireRoom(held!, announced.sizeBytes);
      const { sizeBytes, ...rest } = announced;
      return tx.artifact.create({
        data: {
          id: newId(),
          projectId,
          vmId: vm.id,
          userId,
          uploadUntil,
          expiresAt,
          sizeBytes: BigInt(sizeBytes),
          ...rest,
        },
      });
    });
  }

  /** The caller's artifact. Errors: `artifact_not_found`, for another's too. */
  async find(
    { projectIds, vmIds }: Pick<Caller, 'projectIds' | 'vmIds'>,
    artifactId: string,
  ): Promise<Artifact> {
    const id = parseId(artifactId);
    const found =
      id &&
      (await this.db.artifact.findFirst({
        where: { id, projectId: { in: projectIds }, vmId: { in: vmIds } },
      }));
    if (!found) throw artifactNotFound();
    return found;
  }

  /** As the row says it: of one that is pending `confirmUploaded` knows better. */
  async stateOf({ uploadedAt, uploadUntil, expiresAt }: Artifact): Promise<ArtifactState> {
    const now = await this.db.now();
    if (expiresAt <= now || (!uploadedAt && uploadUntil <= now)) return 'expired';
    return uploadedAt ? 'uploaded' : 'pending';
  }

  /**
   * The artifact once all of its bytes are in the store and are those that were announced; it is noted where the store took them
   * without telling us, and then the digest is computed here unless the store has done so. What does not match is deleted, so
   * that it can be uploaded again. Errors: `artifact_not_uploaded`, `artifact_expired`, `artifact_size_mismatch`,
   * `artifact_sha_mismatch`, `rate_limited` while this process compares enough others.
   */
  async confirmUploaded(artifact: Artifact, trace: Trace = {}): Promise<Artifact> {
    if (artifact.expiresAt <= (await this.db.now())) throw artifactExpired();
    if (artifact.uploadedAt) return artifact;
    const stored = await this.store.stat(artifact.id);
    if (!stored) throw (await this.stateOf(artifact)) === 'expired' ? artifactExpired() : notUploaded();
    try {
      const expected = Number(artifact.sizeBytes);
      if (stored.sizeBytes !== expected) throw sizeMismatch(expected, stored.sizeBytes);
      if (!stored.sha256) await this.compareOnce(artifact);
      else if (!stored.sha256.equals(artifact.sha256)) throw shaMismatch();
    } catch (thrown) {
      const isWrong = thrown instanceof AppError && thrown.code.endsWith('_mismatch');
      if (isWrong) await this.store.delete(artifact.id);
      throw thrown;
    }
    return this.noteUploaded(artifact, trace);
  }

  /** For who has compared the bytes. Audited, once. Errors: `artifact_not_found` when it was deleted meanwhile. */
  async noteUploaded({ id }: Pick<Artifact, 'id'>, trace: Trace = {}): Promise<Artifact> {
    return this.db.$transaction(async (tx) => {
      const [row] = await tx.$queryRaw<object[]>`
        UPDATE artifacts SET uploaded_at = now(),
          expires_at = now() + ${this.config.ARTIFACT_RETENTION_DAYS} * interval '1 day'
        WHERE id = ${id}::uuid AND uploaded_at IS NULL RETURNING *`;
      if (row) await this.audit.write(tx, this.entry('artifact.upload', camelKeys<Artifact>(row), trace));
      const noted = await tx.artifact.findUnique({ where: { id } });
      if (!noted) throw artifactNotFound();
      return noted;
    });
  }

  /** Puts its end off, as it is in use. Errors: `artifact_not_found`. */
  async keep({ id }: Pick<Artifact, 'id'>): Promise<void> {
    const kept = await this.db.$executeRaw`
      UPDATE artifacts SET expires_at = now() + ${this.config.ARTIFACT_RETENTION_DAYS} * interval '1 day'
      WHERE id = ${id}::uuid AND expires_at > now()`;
    if (kept === 0) throw artifactNotFound();
  }

  /** Which of the ids are there. */
  async known(ids: string[]): Promise<ReadonlySet<string>> {
    const rows = await this.db.artifact.findMany({ where: { id: { in: ids } }, select: { id: true } });
    return new Set(rows.map(({ id }) => id));
  }

  /** Of an upload or download that came over our API. The actor is who announced the artifact: the address names nobody else. */
  entry(
    event: 'artifact.upload' | 'artifact.download',
    { id, filename, sizeBytes, sha256, userId, projectId, vmId }: Artifact,
    trace: Trace,
    error?: AppError,
  ): AuditEntry {
    const digest = Buffer.from(sha256).toString('hex');
    return {
      event,
      userId,
      projectId,
      vmId,
      arguments: { artifact_id: id, filename, size_bytes: Number(sizeBytes), sha256: digest },
      result: error ? 'refused' : 'ok',
      code: error?.code,
      ...trace,
    };
  }

  private async inMinutes(minutes: number): Promise<Date> {
    return this.db.now(minutes * 60_000);
  }

  private requireRoom(held: { pending: bigint; kept: bigint; bytes: bigint }, more: number): void {
    const mostBytes = this.config.ARTIFACTS_PROJECT_MIB * 1024 * 1024;
    const details = { pending_max: PENDING_MAX, bytes_max: mostBytes };
    if (held.pending >= PENDING_MAX || held.kept >= KEPT_MAX)
      throw new AppError(
        'rate_limited',
        'The project has announced enough files; upload those first.',
        details,
      );
    if (Number(held.bytes) + more > mostBytes)
      throw new AppError(
        'quota_exceeded',
        'The files of the project take all the space it may have.',
        details,
      );
  }

  /** Those who ask for the same one wait for the same reading. */
  private compareOnce(artifact: Artifact): Promise<void> {
    const { id } = artifact;
    const under = this.comparing.get(id);
    if (under) return under;
    if (this.comparing.size >= COMPARED_AT_ONCE)
      throw new AppError('rate_limited', 'Other uploads are being checked.', { retry_after: 2 });
    const compared = this.compare(artifact).finally(() => this.comparing.delete(id));
    this.comparing.set(id, compared);
    return compared;
  }

  private async compare({ id, sha256 }: Artifact): Promise<void> {
    const hash = createHash('sha256');
    await pipeline(await this.store.read(id), hash);
    if (!hash.digest().equals(sha256)) throw shaMismatch();
  }
}
