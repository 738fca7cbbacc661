// npm run bench [-- PART...]: runs test/bench/PART.ts, one after another, each in a process and on servers of its own. The last
// line is JSON with the figures of all of them. Figures are reported, never a test's verdict; a part that fails is named.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

/** `mcp` and `audit` run when they are named. */
const PARTS = ['submit', 'jobs', 'throughput', 'workers', 'logs', 'exec', 'tail', 'tails', 'memory'];

const named = process.argv.slice(2);
const figures = {};
const failed = [];
for (const part of named.length > 0 ? named : PARTS) {
  const child = fork(join(import.meta.dirname, 'part.mjs'), [part]);
  let hasEnded = false;
  child.on('message', (found) => {
    hasEnded = true;
    Object.assign(figures, found);
  });
  await once(child, 'exit');
  if (!hasEnded) failed.push(part);
}
if (failed.length > 0) console.log(`failed: ${failed.join(', ')}`);
console.log(JSON.stringify(figures));
