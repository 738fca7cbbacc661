import type { Database } from '@longhaul/persistence';
import type { Artifacts } from './artifacts.js';

/** Artifacts that one transaction deletes. */
const BATCH = 20;
const BATCH_MS = 60_000;
/** What is younger may belong to an upload that goes on. */
const ORPHAN_HOURS = 2;

/**
 * Deletes artifacts whose time is over or whose VM is gone, bytes first: after a crash the row is there, and the next round ends it.
 * Several may run it at once. Answers how many it were.
 */
export async function sweepArtifacts(db: Database, { store }: Artifacts, stop: AbortSignal): Promise<number> {
  let deleted = 0;
  for (let found = BATCH; found === BATCH && !stop.aborted; deleted += found) {
    found = await db.$transaction(
      async (tx) => {
        const rows = await tx.$queryRaw<{ id: string }[]>`
          SELECT id FROM artifacts
          WHERE expires_at <= now() OR NOT EXISTS (SELECT FROM vms WHERE vms.id = artifacts.vm_id)
          LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`;
        const ids = rows.map(({ id }) => id);
        await Promise.all(ids.map((id) => store.delete(id)));
        await tx.artifact.deleteMany({ where: { id: { in: ids } } });
        return ids.length;
      },
      { timeout: BATCH_MS },
    );
  }
  return deleted;
}

/** Deletes bytes that belong to no artifact, as after a crash amid an upload. Answers how many files it were. */
export async function collectOrphans(db: Database, artifacts: Artifacts, stop: AbortSignal): Promise<number> {
  const before = await db.now(-ORPHAN_HOURS * 3_600_000);
  return artifacts.store.collect(before, (ids) => artifacts.known(ids), stop);
}
