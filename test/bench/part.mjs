// One part of run.mjs, which is told its figures.
import setup from '../support/servers.mjs';
import stop from '../support/stop-servers.mjs';

/** They start a cluster, which has servers of its own; the engine of migrations serves one of the two. */
const OF_CLUSTER = ['exec', 'tail', 'tails', 'memory'];

const [part] = process.argv.slice(2);
if (!OF_CLUSTER.includes(part)) await setup();
try {
  const { default: bench } = await import(`./${part}.ts`);
  const figures = await bench();
  await new Promise((sent) => process.send(figures, sent));
} finally {
  if (!OF_CLUSTER.includes(part)) await stop();
}
process.exit(0);
