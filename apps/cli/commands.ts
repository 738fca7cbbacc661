import { parseArgs } from 'node:util';
import { adoptCommands } from './adopt-commands.js';
import { auditCommands } from './audit-commands.js';
import { clientCommands } from './client-commands.js';
import { openContext, type Context } from './context.js';
import { openDatabase } from './database.js';
import { fromEnvironment } from './environment.js';
import { findRunning, openHome } from './home.js';
import { keyCommands } from './key-commands.js';
import { projectCommands } from './project-commands.js';
import { switchCommands } from './switch-commands.js';
import { tokenCommands } from './token-commands.js';
import { USAGE, UsageError } from './usage.js';
import { userCommands } from './user-commands.js';
import { vmCommands } from './vm-commands.js';

const OPTIONS = {
  user: { type: 'string' },
  exec: { type: 'boolean' },
  person: { type: 'boolean' },
  staff: { type: 'boolean' },
  'password-stdin': { type: 'boolean' },
  name: { type: 'string' },
  scopes: { type: 'string' },
  project: { type: 'string', multiple: true },
  vm: { type: 'string', multiple: true },
  expires: { type: 'string' },
  role: { type: 'string' },
  reason: { type: 'string' },
  cancel: { type: 'boolean' },
  since: { type: 'string' },
  head: { type: 'string' },
  host: { type: 'string' },
  qmp: { type: 'string' },
  agent: { type: 'string' },
  ssh: { type: 'string' },
  key: { type: 'string' },
  'host-key': { type: 'string' },
  vms: { type: 'string' },
  cpus: { type: 'string' },
  'memory-mb': { type: 'string' },
  'disk-gb': { type: 'string' },
  jobs: { type: 'string' },
  concurrency: { type: 'string' },
} as const;

export type Options = ReturnType<typeof parse>['values'];

/** A command by its first two words: the names of its arguments, all required, and what it does. */
export interface Command {
  args: readonly string[];
  /** Those of OPTIONS that it takes. */
  options?: readonly (keyof typeof OPTIONS)[];
  run(context: Context, args: string[], options: Options): Promise<void>;
}

const COMMANDS: Record<string, Command> = {
  ...userCommands,
  ...tokenCommands,
  ...clientCommands,
  ...projectCommands,
  ...vmCommands,
  ...adoptCommands,
  ...switchCommands,
  ...keyCommands,
  ...auditCommands,
};

/** Runs one of the commands that work on the database of a Longhaul that is up (or that DATABASE_URL names). */
export async function runCommand(argv: string[]): Promise<void> {
  const { values, positionals } = parse(argv);
  const [noun, verb, ...args] = positionals;
  const command = COMMANDS[`${noun} ${verb}`];
  const taken = command?.options ?? [];
  const strange = Object.keys(values).filter((name) => !taken.some((one) => one === name));
  if (!command || args.length !== command.args.length || strange.length > 0) throw new UsageError(USAGE);

  const home = openHome();
  if (!fromEnvironment('DATABASE_URL') && !findRunning(home))
    throw new UsageError('Longhaul is not up. Start it with: npm start');
  const { env } = await openDatabase(home, console.error);
  const context = await openContext({ ...process.env, ...env });
  try {
    await command.run(context, args, values);
  } finally {
    await context.close();
  }
}

function parse(argv: string[]) {
  try {
    return parseArgs({ args: argv, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${USAGE}`);
  }
}
