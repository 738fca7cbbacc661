// npm run conformance [-- options]: the official suite against Longhaul with the fixtures that the suite asks for. The last line
// is JSON; the exit code is 0 only if all required passes.
//   --apis 2            two API processes, taken in turn (default 1)
//   --queue redis       what delivers jobs: postgres (default) or redis
//   --stateless         no sessions for 2025-11-25: four scenarios must fail, and no other
//   --matrix            every shape that is supported, one after the other
//   --serve             only starts the test build, for looking into a scenario by hand
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import setup from '../support/servers.mjs';
import stop from '../support/stop-servers.mjs';
import { PARTS, conform, nameOf } from './conformance.ts';
import { startTestBuild } from './test-build.ts';

const { values: options } = parseArgs({
  options: {
    apis: { type: 'string', default: '1' },
    queue: { type: 'string', default: 'postgres' },
    stateless: { type: 'boolean', default: false },
    matrix: { type: 'boolean', default: false },
    serve: { type: 'boolean', default: false },
  },
});
const shape = { apis: Number(options.apis), queue: options.queue, sessions: !options.stateless };
if (!(shape.apis >= 1 && shape.apis <= 8) || !['postgres', 'redis'].includes(shape.queue)) {
  console.error('--apis is a number from 1 to 8, --queue is postgres or redis');
  process.exit(2);
}

const controller = new AbortController();
const interrupt = controller.signal;
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => controller.abort());

/** Sessions have to do neither with the new revision nor with the queue. */
const [revision2026, revision2025, tasks] = PARTS;
const MATRIX = [
  [{ apis: 1, queue: 'postgres', sessions: true }, PARTS],
  [{ apis: 2, queue: 'postgres', sessions: true }, PARTS],
  [{ apis: 1, queue: 'redis', sessions: true }, [revision2026, tasks]],
  [{ apis: 2, queue: 'redis', sessions: true }, [revision2026, tasks]],
  [{ apis: 1, queue: 'postgres', sessions: false }, [revision2025]],
];

async function runMatrix() {
  const matrix = {};
  let ok = true;
  for (const [each, parts] of MATRIX) {
    console.log(`\n${nameOf(each)}`);
    const { ok: good, tallies } = await conform(each, parts, interrupt);
    matrix[nameOf(each)] = tallies;
    ok &&= good;
  }
  return { ok, tallies: { ...matrix[nameOf(MATRIX[0][0])], matrix } };
}

async function serve() {
  const build = await startTestBuild(shape);
  console.log(`${build.url} until Ctrl-C`);
  if (!interrupt.aborted) await once(interrupt, 'abort');
  await build.stop();
}

let exitCode = 0;
try {
  await setup();
  if (options.serve) await serve();
  else {
    const { ok, tallies } = await (options.matrix ? runMatrix() : conform(shape, PARTS, interrupt));
    console.log(JSON.stringify(tallies));
    if (!ok) exitCode = 1;
  }
} catch (error) {
  if (!interrupt.aborted) throw error;
  exitCode = 130;
} finally {
  await stop();
}
process.exit(exitCode);
