import { ConfigError, parseConfig } from '@longhaul/config';
import { createLogger } from '@longhaul/telemetry';
import { apiConfig, type ApiConfig } from './config.js';
import { startServer, type ApiServer } from './server.js';

/** A process that cannot end in order ends anyway. */
const STOP_MS = 10_000;

const log = createLogger('api');

/** The one place where the process ends on purpose; `reason` is for whoever reads the log or the terminal. */
function fail(reason: string): never {
  log.fatal(reason);
  process.exit(1);
}

function readConfig(): ApiConfig {
  try {
    return parseConfig(apiConfig);
  } catch (error) {
    if (error instanceof ConfigError) fail(error.message);
    throw error;
  }
}

function explain(error: unknown, { HOST, PORT }: ApiConfig): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') return `Port ${PORT} on ${HOST} is taken. Set PORT to a free one.`;
  if (code === 'EADDRNOTAVAIL') return `This machine has no address ${HOST}. Set HOST to one of its own.`;
  return `The API cannot start: ${message}`;
}

function stopOnSignals(server: ApiServer, { SHUTDOWN_DELAY_SECONDS }: ApiConfig) {
  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ why }, 'stopping');
    // Who presses Ctrl-C has no proxy that would have to notice.
    const delayMs = why === 'SIGTERM' ? SHUTDOWN_DELAY_SECONDS * 1_000 : 0;
    setTimeout(() => fail('did not stop in time'), delayMs + STOP_MS).unref();
    await server.close(delayMs);
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(signal));
  process.on('disconnect', () => void stop('disconnect'));
}

const config = readConfig();
const server = await startServer(config).catch((error: unknown) => fail(explain(error, config)));
stopOnSignals(server, config);
log.info({ host: config.HOST, port: server.port }, 'listening');
process.send?.({ type: 'ready', port: server.port });
