// node --import ./test/support/register-typescript.mjs test/bench/run.mjs NAME: runs test/bench/NAME.ts on servers of its
// own. The last line is JSON. Figures are reported, never a test's verdict.
import setup from '../support/servers.mjs';
import stop from '../support/stop-servers.mjs';

await setup();
try {
  const { default: bench } = await import(`./${process.argv[2]}.ts`);
  console.log(JSON.stringify(await bench()));
} finally {
  await stop();
}
process.exit(0);
