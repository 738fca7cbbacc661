// npm start: makes sure of what Longhaul needs, then runs `longhaul up` in this same process, so that signals reach it.
import { SetupError, build, checkNode, installNpmPackages, installSystemPackages } from './setup.mjs';

try {
  checkNode();
  await installNpmPackages();
  await installSystemPackages();
  await build();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exit(1);
}
process.argv.splice(1, 1, new URL('../dist/apps/cli/main.js', import.meta.url).pathname, 'up');
await import('../dist/apps/cli/main.js');
