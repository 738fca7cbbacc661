// npm run conformance:authorization: the official suite against the built-in authorization server. The last line is JSON; the
// exit code is 0 only if all passes.
import setup from '../support/servers.mjs';
import stop from '../support/stop-servers.mjs';

const controller = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => controller.abort());

let exitCode = 1;
try {
  await setup();
  const { conformAuthorization } = await import('./authorization.ts');
  const { ok, tally } = await conformAuthorization(controller.signal);
  console.log(JSON.stringify(tally));
  if (ok) exitCode = 0;
} catch (error) {
  if (!controller.signal.aborted) throw error;
  exitCode = 130;
} finally {
  await stop();
}
process.exit(exitCode);
