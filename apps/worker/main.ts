import 'reflect-metadata';
import { ConfigError, parseConfig } from '@longhaul/config';
import { createLogger } from '@longhaul/telemetry';
import { handlers } from '@longhaul/toolsets/handlers';
import { workerConfig } from './config.js';
import { startWorker } from './start.js';

try {
  await startWorker(parseConfig(workerConfig), handlers);
} catch (error) {
  if (error instanceof ConfigError) console.error(error.message);
  else createLogger('worker').fatal({ err: error }, 'the worker cannot start');
  process.exit(1);
}
