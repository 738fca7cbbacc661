import { Inject, Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { Artifacts, collectOrphans, sweepArtifacts } from '@longhaul/artifacts';
import { dropExpired, makePartitions, sealEvents, type Sealed } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { LogArchive } from '@longhaul/job-log';
import { Attempts, Recovery, Retention } from '@longhaul/jobs';
import { sweepOauth } from '@longhaul/oauth';
import { Database, type Vm } from '@longhaul/persistence';
import { createLogger, metrics } from '@longhaul/telemetry';
import { collectOldCommands } from '@longhaul/toolsets/commands/collect-commands';
import { Handlers } from '@longhaul/toolsets/handler';
import type { WorkerConfig } from './config.js';
import { JobRunner } from './job-runner.js';
import { Observer } from './observer.js';
import { VmProviders } from './vm-providers.js';

const HOST_BEAT_MS = 5_000;
const SWEEP_MS = 1_000;
const CLEAN_UP_MS = 2_000;
const OBSERVE_MS = 1_000;
const COLLECT_MS = 600_000;
const RETENTION_MS = 300_000;
const ORPHANS_MS = 3_600_000;
const SEAL_MS = 15_000;

/** What a worker does besides jobs, each on its own beat: heartbeats, recovery, clean-ups, retention, its VMs. */
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
    private readonly retention: Retention,
    private readonly runner: JobRunner,
    private readonly providers: VmProviders,
    private readonly observer: Observer,
    private readonly handlers: Handlers,
    private readonly artifacts: Artifacts,
    private readonly archive: LogArchive,
  ) {}

  async onApplicationBootstrap() {
    // Each loop listens.
    setMaxListeners(0, this.stopping.signal);
    // Before the first sweep, so that jobs of our hosts count as having somebody.
    await this.recovery.beat(this.config.WORKER_HOSTS);
    const heartbeatMs = (this.config.JOB_LEASE_SECONDS * 1_000) / 6;
    this.loops = [
      this.every('heartbeat', heartbeatMs, () => this.runner.heartbeat()),
      this.every('host_beat', HOST_BEAT_MS, () => this.recovery.beat(this.config.WORKER_HOSTS)),
      this.every('recovery', SWEEP_MS, () => this.recovery.sweep()),
      this.every('clean_up', CLEAN_UP_MS, () => this.cleanUp()),
      this.every('observe', OBSERVE_MS, () => this.observer.round()),
      this.every('collect_commands', COLLECT_MS, () => this.collect()),
      this.every('retention', RETENTION_MS, () => this.dropJobs()),
      this.every('archive_logs', RETENTION_MS, () => this.archiveLogs()),
      this.every('keep_audit', RETENTION_MS, () => this.keepAudit()),
      this.every('seal_audit', SEAL_MS, () => this.sealAudit()),
      this.every('sweep_oauth', RETENTION_MS, () => sweepOauth(this.db, this.stopping.signal)),
      this.every('sweep_artifacts', RETENTION_MS, () => this.sweepArtifacts()),
      this.every('collect_orphans', ORPHANS_MS, () => this.collectOrphans()),
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

  private dropJobs(): Promise<void> {
    return this.retention.sweep(this.stopping.signal, (pieces) => this.archive.forget(pieces));
  }

  private async archiveLogs(): Promise<void> {
    const hours = this.config.LOG_ARCHIVE_HOURS;
    const bytes = hours > 0 ? await this.archive.sweep(hours, this.stopping.signal) : 0;
    if (bytes > 0) this.log.info({ bytes }, 'logs archived');
  }

  private async sweepArtifacts(): Promise<void> {
    const count = await sweepArtifacts(this.db, this.artifacts, this.stopping.signal);
    if (count > 0) this.log.info({ count }, 'artifacts dropped');
  }

  private async collectOrphans(): Promise<void> {
    const stop = this.stopping.signal;
    const count = (await collectOrphans(this.artifacts, stop)) + (await this.archive.collect(stop));
    if (count > 0) this.log.info({ count }, 'bytes without a row dropped');
  }

  private async keepAudit(): Promise<void> {
    await makePartitions(this.db);
    for (const partition of await dropExpired(this.db, this.config.AUDIT_RETENTION_DAYS))
      this.log.info({ partition }, 'audit dropped by retention');
  }

  /** The log says the end of the chain, so that a log kept elsewhere vouches for it. */
  private async sealAudit(): Promise<void> {
    const note = ({ number, count, digest }: Sealed) =>
      this.log.info({ head: `${number}:${Buffer.from(digest).toString('hex')}`, count }, 'audit sealed');
    await sealEvents(this.db, note, this.stopping.signal);
  }
}
