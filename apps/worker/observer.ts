import { Inject, Injectable } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import { Database, Prisma, type Vm } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { Observed } from '@longhaul/toolsets/vms/observed';
import type { WorkerConfig } from './config.js';
import { LookPool } from './look-pool.js';
import { lookAtPower, lookInside, type PowerLook } from './vm-look.js';
import { VmProviders } from './vm-providers.js';

/** How old what is known may get, seconds: of a VM that may die by itself, of one that only jobs change, of its guest. */
const AGE = { alive: 4, off: 15, guest: 15 };

type SeenPower = PowerLook & { id: string; read_at: Date | null };
type SeenInside = { id: string; patch: Partial<Observed> };

/**
 * Keeps the rows of this worker's VMs fresh. No look waits for another one, and none is waited for: each round writes what
 * earlier ones have found, in one statement, and starts those that are due. Several workers of a host share the work, as
 * what one has written is not due for the others.
 */
@Injectable()
export class Observer {
  private readonly log = createLogger('observer');
  private readonly power = new LookPool({ slots: 32, lateMs: 5_000, quietMs: 20_000 });
  private readonly inside = new LookPool({ slots: 16, lateMs: 12_000, quietMs: 5_000 });
  private readonly seenPower = new Map<string, SeenPower>();
  private readonly seenInside = new Map<string, SeenInside>();

  constructor(
    @Inject(CONFIG) private readonly config: Pick<WorkerConfig, 'WORKER_HOSTS'>,
    private readonly db: Database,
    @Inject(VmProviders) private readonly providers: Pick<VmProviders, 'of'>,
  ) {}

  async round(): Promise<void> {
    await this.writePower();
    await this.writeInside();
    for (const vm of await this.due(this.power, POWER_DUE)) {
      this.look(this.power, vm, async () => {
        const seen = await lookAtPower(vm, this.providers.of(vm));
        this.seenPower.set(vm.id, { ...seen, id: vm.id, read_at: vm.observedAt });
      });
    }
    for (const vm of await this.due(this.inside, INSIDE_DUE)) {
      this.look(this.inside, vm, async () => {
        this.seenInside.set(vm.id, {
          id: vm.id,
          patch: await lookInside(this.db, vm, this.providers.of(vm)),
        });
      });
    }
  }

  private look(pool: LookPool, vm: Vm, look: () => Promise<void>): void {
    void pool.run(vm.id, look).then((error) => {
      if (error) this.log.debug({ err: error, vmId: vm.id }, 'the VM could not be looked at');
    });
  }

  /** By the database's clock, which has written the times, the longest unseen first. */
  private async due(pool: LookPool, isDue: Prisma.Sql): Promise<Vm[]> {
    const { WORKER_HOSTS: hosts } = this.config;
    if (pool.free <= 0) return [];
    const rows = await this.db.$queryRaw<{ id: string }[]>`
      SELECT id FROM vms
      WHERE host = ANY(${hosts}) AND NOT id = ANY(${pool.leftAlone()}::uuid[]) AND ${isDue}
      ORDER BY observed_at NULLS FIRST LIMIT ${pool.free}`;
    return this.db.vm.findMany({ where: { id: { in: rows.map(({ id }) => id) } } });
  }

  /** Rows that somebody else has written meanwhile (a power job, say) or is writing are left for the next round. */
  private async writePower(): Promise<void> {
    const seen = takeAll(this.seenPower);
    if (seen.length === 0) return;
    await this.db.$executeRaw`
      WITH seen AS (
        SELECT * FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb)
          AS seen(id uuid, read_at timestamptz, power text, patch jsonb)
      ), mine AS (
        SELECT vms.id FROM vms JOIN seen ON seen.id = vms.id
        WHERE vms.observed_at IS NOT DISTINCT FROM seen.read_at
        FOR UPDATE OF vms SKIP LOCKED
      )
      UPDATE vms SET power_state = power, observed = coalesce(observed, '{}') || patch, observed_at = now()
      FROM seen JOIN mine USING (id) WHERE vms.id = seen.id`;
  }

  private async writeInside(): Promise<void> {
    const seen = takeAll(this.seenInside);
    if (seen.length === 0) return;
    await this.db.$executeRaw`
      WITH seen AS (
        SELECT * FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS seen(id uuid, patch jsonb)
      ), mine AS (
        SELECT vms.id FROM vms JOIN seen ON seen.id = vms.id
        WHERE vms.power_state = 'running'
        FOR UPDATE OF vms SKIP LOCKED
      )
      UPDATE vms SET observed = coalesce(observed, '{}') || patch
      FROM seen JOIN mine USING (id) WHERE vms.id = seen.id`;
  }
}

function takeAll<T>(found: Map<string, T>): T[] {
  const all = [...found.values()];
  found.clear();
  return all;
}

const POWER_DUE = Prisma.sql`(observed_at IS NULL OR observed_at < now() - interval '1 s' *
  CASE WHEN power_state IN ('stopped', 'suspended', 'crashed') THEN ${AGE.off}::int ELSE ${AGE.alive}::int END)`;

const INSIDE_DUE = Prisma.sql`power_state = 'running'
  AND coalesce((observed->>'agent_asked_at')::timestamptz, '-infinity') < now() - interval '1 s' * ${AGE.guest}::int`;
