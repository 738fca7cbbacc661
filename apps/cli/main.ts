import { ConfigError } from '@longhaul/config';
import { runCommand, UsageError, USAGE } from './commands.js';
import { doctor } from './doctor.js';
import { openHome } from './home.js';
import { up } from './up.js';
import { openVms } from './vms.js';

const [command, ...rest] = process.argv.slice(2);
try {
  if (command === 'up' && rest.length === 0) await up();
  else if (command === 'doctor' && rest.length === 0) process.exitCode = await doctor();
  else if (command === 'image' && rest.length === 0) await openVms(openHome(), console.log);
  else if (command === undefined || command === '--help' || command === 'help') console.log(USAGE);
  else await runCommand(process.argv.slice(2));
} catch (error) {
  const isFaultOfCaller = error instanceof UsageError || error instanceof ConfigError;
  console.error(isFaultOfCaller || !process.env.DEBUG ? (error as Error).message : error);
  process.exit(1);
}
