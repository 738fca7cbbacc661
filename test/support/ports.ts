import { randomInt } from 'node:crypto';
import { freePort } from '@longhaul/persistence/embedded';

/** A free port of the loopback below those that outgoing connections are given, so that none takes it while its server is down. */
export async function portToKeep(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if ((await freePort(port)) === port) return port;
  }
}
