import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { sealEvents, type Sealed } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { Attempts, Recovery } from '@longhaul/jobs';
import { sweepOauth } from '@longhaul/oauth';
import { Database, whenUp, type Vm } from '@longhaul/persistence';
import { createLogger, metrics } from '@longhaul/telemetry';
import { collectOldCommands } from '@longhaul/toolsets/commands/collect-commands';
import { Handlers } from '@longhaul/toolsets/handler';
import type { WorkerConfig } from './config.js';
import { JobRunner } from './job-runner.js';
import { Observer } from './observer.js';
import { SystemJobs } from './system-jobs.js';
import { VmProviders } from './vm-providers.js';

const HOST_BEAT_MS = 5_000;
const SWEEP_MS = 1_000;
const CLEAN_UP_MS = 2_000;
const OBSERVE_MS = 1_000;
const COLLECT_MS = 600_000;
const SYSTEM_JOBS_MS = 60_000;
const OAUTH_MS = 300_000;
const SEAL_MS = 15_000;

/** What a worker does besides jobs, each on its own beat: heartbeats, recovery, clean-ups, its VMs; the jobs of Longhaul's own are submitted. */
@Injectable()
export class Housekeeping implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly log = createLogger('housekeeping');
  private readonly stopping = new AbortController();
  private loops: Promise<void>[] = [];

  constructor(
    @Inject(CONFIG) private readonly config: WorkerConfig,
    private readonly db: Database,
    private readonly attempts: Attempts,
    private readonly recovery: Recovery,
    private readonly system: SystemJobs,
    private readonly runner: JobRunner,
    private readonly providers: VmProviders,
    private readonly observer: Observer,
    private readonly handlers: Handlers,
  ) {}

  async onApplicationBootstrap() {
    // Each loop listens.
    setMaxListeners(0, this.stopping.signal);
    // Before the first sweep, so that jobs of our hosts count as having somebody.
    await whenUp(() => this.recovery.beat(this.config.WORKER_HOSTS));
    const heartbeatMs = (this.config.JOB_LEASE_SECONDS * 1_000) / 6;
    this.loops = [
      this.every('heartbeat', heartbeatMs, () => this.runner.heartbeat()),
      this.every('host_beat', HOST_BEAT_MS, () => this.recovery.beat(this.config.WORKER_HOSTS)),
      this.every('recovery', SWEEP_MS, () => this.recovery.sweep()),
      this.every('clean_up', CLEAN_UP_MS, () => this.cleanUp()),
      this.every('observe', OBSERVE_MS, () => this.observer.round()),
      this.every('collect_commands', COLLECT_MS, () => this.collect()),
      this.every('system_jobs', SYSTEM_JOBS_MS, () => this.system.submit()),
      this.every('seal_audit', SEAL_MS, () => this.sealAudit()),
      this.every('sweep_oauth', OAUTH_MS, () => sweepOauth(this.db, this.stopping.signal)),
    ];
  }

  async onApplicationShutdown() {
    this.stopping.abort();
    await Promise.all(this.loops);
  }

  private async every(task: string, ms: number, round: () => Promise<void>): Promise<void> {
    while (!this.stopping.signal.aborted) {
      await round().then(
        () => metrics.housekeepingSuccess.setToCurrentTime({ task }),
        (error: unknown) => {
          metrics.housekeepingFailures.inc({ task });
          this.log.warn({ err: error, task }, 'housekeeping failed, next round follows');
        },
      );
      await pause(ms, undefined, { signal: this.stopping.signal }).catch(() => undefined);
    }
  }

  /** Makes sure that nothing of an `unknown` job is left in its guest, then gives its slot back. */
  private async cleanUp(): Promise<void> {
    const job = await this.recovery.takeQuarantined(this.config.WORKER_HOSTS);
    if (!job) return;
    const handler = this.handlers.get(job.kind);
    // A newer worker tries it, in its turn.
    if (!handler) return;
    const vmProvider = this.providers.of.bind(this.providers);
    await handler.cleanUp?.({ job, attempts: this.attempts, db: this.db, vmProvider });
    await this.recovery.release(job.id);
    this.log.info({ jobId: job.id }, 'quarantine lifted');
  }

  private myVms(): Promise<Vm[]> {
    return this.db.vm.findMany({ where: { host: { in: this.config.WORKER_HOSTS } } });
  }

  private async collect(): Promise<void> {
    for (const vm of await this.myVms()) {
      if (vm.powerState !== 'running') continue;
      await collectOldCommands(this.db, vm, this.providers.of(vm)).catch((error: unknown) =>
        this.log.warn({ err: error, vmId: vm.id }, 'old commands could not be collected'),
      );
    }
  }

  /** The log says the end of the chain, so that a log kept elsewhere vouches for it. */
  private async sealAudit(): Promise<void> {
    const note = ({ number, count, digest }: Sealed) =>
      this.log.info({ head: `${number}:${Buffer.from(digest).toString('hex')}`, count }, 'audit sealed');
    await sealEvents(this.db, note, this.stopping.signal);
  }
}
