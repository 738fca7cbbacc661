import { NestLogger, createLogger, setLogLevel } from '@longhaul/telemetry';
import type { JobHandler } from '@longhaul/toolsets/handler';
import { NestFactory } from '@nestjs/core';
import type { WorkerConfig } from './config.js';
import { WorkerModule } from './worker.module.js';

const SIGNALS = ['SIGTERM', 'SIGINT'];
/** After the drain, to hand over what is left and to close. */
const STOP_MS = 12_000;

/** Makes this process a worker until it is told to stop. Throws when the database is away for a minute. */
export async function startWorker(config: WorkerConfig, handlers: readonly JobHandler[]): Promise<void> {
  setLogLevel(config.LOG_LEVEL);
  const log = createLogger('worker');
  const app = await NestFactory.createApplicationContext(WorkerModule.with(config, handlers), {
    logger: new NestLogger(log),
    abortOnError: false,
  });
  app.enableShutdownHooks(SIGNALS, { useProcessExit: true });
  // A worker that was started by another process does not outlive it.
  process.on('disconnect', () => void app.close().finally(() => process.exit(0)));
  // What keeps it from ending in order, such as a queue that is away, does not keep it from ending.
  for (const event of [...SIGNALS, 'disconnect']) {
    process.on(event, () =>
      setTimeout(() => process.exit(1), config.DRAIN_SECONDS * 1_000 + STOP_MS).unref(),
    );
  }
  process.send?.({ type: 'ready' });
  log.info({ hosts: config.WORKER_HOSTS }, 'worker is ready');
}
