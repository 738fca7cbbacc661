import 'reflect-metadata';
import { ConfigError, parseConfig } from '@longhaul/config';
import { NestLogger, createLogger, setLogLevel } from '@longhaul/telemetry';
import { NestFactory } from '@nestjs/core';
import { workerConfig } from './config.js';
import { WorkerModule } from './worker.module.js';

async function main() {
  const config = parseConfig(workerConfig);
  setLogLevel(config.LOG_LEVEL);
  const log = createLogger('worker');
  const app = await NestFactory.createApplicationContext(WorkerModule.with(config), {
    logger: new NestLogger(log),
    abortOnError: false,
  });
  app.enableShutdownHooks(['SIGTERM', 'SIGINT']);
  // A worker that was started by another process does not outlive it.
  process.on('disconnect', () => void app.close().finally(() => process.exit(0)));
  process.send?.({ type: 'ready' });
  log.info({ hosts: config.WORKER_HOSTS }, 'worker is ready');
}

main().catch((error: unknown) => {
  if (error instanceof ConfigError) console.error(error.message);
  else createLogger('worker').fatal({ err: error }, 'the worker cannot start');
  process.exit(1);
});
