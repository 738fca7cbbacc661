// npm run chaos [-- options]: thousands of jobs while a seeded schedule of faults breaks everything, then the count of what went
// wrong. The last line is JSON; the exit code is 0 only if nothing did. Everything else is said on the standard error.
//   --seed 7        the same seed makes the same jobs and the same faults at the same times (default: at random)
//   --jobs 2000     (default 2000)
//   --minutes 6     over which jobs and faults are spread (default 6)
//   --vms 0         VMs of QEMU beside the guest agents in namespaces, at most 2 (default 2)
//   --keep          leaves everything running afterwards, for a look, until Ctrl-C
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import {
  SetupError,
  build,
  checkNode,
  installNpmPackages,
  installSystemPackages,
  run,
} from '../../scripts/setup.mjs';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(1 + Math.floor(Math.random() * 999_999)) },
    jobs: { type: 'string', default: '2000' },
    minutes: { type: 'string', default: '6' },
    vms: { type: 'string', default: '2' },
    keep: { type: 'boolean', default: false },
  },
});
const [seed, jobs, minutes, vms] = [values.seed, values.jobs, values.minutes, values.vms].map(Number);
if (!(
  Number.isInteger(seed) &&
  jobs >= 1 &&
  jobs <= 100_000 &&
  minutes > 0 &&
  minutes <= 600 &&
  [0, 1, 2].includes(vms)
)) {
  console.error('--seed is a whole number, --jobs 1 to 100000, --minutes up to 600, --vms 0, 1 or 2');
  process.exit(2);
}

const home = process.env.LONGHAUL_HOME || (process.getuid() === 0 ? '/var/lib/longhaul' : '.longhaul');
process.env.TEST_IMAGES ??= process.env.LONGHAUL_IMAGES || join(resolve(home), 'images');
try {
  checkNode();
  await installNpmPackages();
  await installSystemPackages({ forTests: true });
  await build();
  if (vms > 0) await run('Guest image', process.execPath, ['dist/apps/cli/main.js', 'image']);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exit(1);
}

await import('../support/register-typescript.mjs');
const { chaos } = await import('./chaos.ts');
const begun = performance.now();
const say = (text) => console.error(`${((performance.now() - begun) / 1000).toFixed(1).padStart(6)} ${text}`);
const keep = async ({ stack, servers }) => {
  say(
    JSON.stringify({
      url: stack.url,
      token: stack.token,
      servers: [...servers].map(([name, { url }]) => [name, url]),
    }),
  );
  await Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal)));
};
const summary = await chaos({ seed, jobs, minutes, vms, say, ...(values.keep && { keep }) });
console.log(JSON.stringify(summary));
const { lost, run_twice, log_gaps, leftovers, crashes } = summary;
process.exit(lost + run_twice + log_gaps + leftovers + crashes === 0 ? 0 : 1);
