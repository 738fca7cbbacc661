import { accessSync, constants, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { findRunning, openHome } from './home.js';

const LEAST_FREE_GB = 3;

/** Says what Longhaul finds on this machine; answers the exit code, 1 when something that it needs is missing. */
export async function doctor(): Promise<number> {
  const setup = (await import(join(import.meta.dirname, '../../../scripts/setup.mjs'))) as {
    missingSystemPackages(): string[];
  };
  const missing = setup.missingSystemPackages();
  const home = openHome();
  const { bavail, bsize } = statfsSync(home.directory);
  const freeGb = Math.floor((bavail * bsize) / 1e9);
  const running = findRunning(home);

  const report = (isGood: boolean, text: string) => console.log(`${isGood ? 'ok     ' : 'MISSING'}  ${text}`);
  report(
    missing.length === 0,
    missing.length === 0 ? 'system packages' : `system packages: ${missing.join(', ')}`,
  );
  report(freeGb >= LEAST_FREE_GB, `${freeGb} GB free below ${home.directory} (${LEAST_FREE_GB} GB needed)`);
  console.log(
    `${hasKvm() ? 'ok     ' : 'slow   '}  hardware virtualisation (/dev/kvm); without it VMs are emulated`,
  );
  console.log(`${running ? 'up     ' : 'down   '}  Longhaul${running ? ` (process ${running.pid})` : ''}`);
  return missing.length === 0 && freeGb >= LEAST_FREE_GB ? 0 : 1;
}

function hasKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
