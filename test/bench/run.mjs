// npm run bench [-- PART...]: runs test/bench/PART.ts, one after another, on servers of their own. The last line is JSON with
// the figures of all of them. Figures are reported, never a test's verdict.
import setup from '../support/servers.mjs';
import stop from '../support/stop-servers.mjs';

/** `mcp` and `audit` run when they are named. */
const PARTS = ['submit', 'jobs', 'throughput', 'workers', 'logs', 'exec', 'tail', 'tails', 'memory'];

const named = process.argv.slice(2);
const figures = {};
await setup();
try {
  for (const part of named.length > 0 ? named : PARTS) {
    const { default: bench } = await import(`./${part}.ts`);
    Object.assign(figures, await bench());
  }
} finally {
  await stop();
}
console.log(JSON.stringify(figures));
process.exit(0);
