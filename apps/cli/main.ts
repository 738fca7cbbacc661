import { fromEnvironment } from './environment.js';
import { openHome } from './home.js';
import { USAGE, UsageError } from './usage.js';

// Each command loads what it needs when it needs it: a start would wait half a second for libraries otherwise.
async function run(argv: string[]): Promise<number | void> {
  const [command, ...rest] = argv;
  if (command === 'mcp' && rest.join() === '--stdio')
    return (await import('./stdio-bridge.js')).bridgeStdio();
  if (rest.length === 0) {
    if (command === 'up') return (await import('./up.js')).up();
    if (command === 'doctor') return (await import('./doctor.js')).doctor();
    if (command === 'image') return void (await (await import('./vms.js')).openVms(openHome(), console.log));
    if (command === 'migrate') return (await import('./migrate.js')).migrate();
    if (command === undefined || command === '--help' || command === 'help') return console.log(USAGE);
  }
  return (await import('./commands.js')).runCommand(argv);
}

try {
  process.exitCode = (await run(process.argv.slice(2))) ?? 0;
} catch (error) {
  const isEnough = error instanceof UsageError || !fromEnvironment('DEBUG');
  console.error(isEnough ? (error as Error).message : error);
  process.exit(1);
}
