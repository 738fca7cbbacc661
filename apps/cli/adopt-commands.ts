import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { AppError } from '@longhaul/errors';
import { AgentChannel, SshChannel, checkPrivateKey, parseHostKey } from '@longhaul/guest';
import { FINAL_STATES } from '@longhaul/jobs';
import { newId, type Prisma } from '@longhaul/persistence';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { forgetVm } from '@longhaul/toolsets/vms/forget-vm';
import {
  guestAgentConnection,
  inspectGuest,
  inspectQemu,
  qemuConnection,
  sshConnection,
  sshCredential,
  type GuestFacts,
} from '@longhaul/vm-providers';
import { z } from 'zod';
import type { Command, Options } from './commands.js';
import type { Context } from './context.js';
import { ownerOf } from './first-vm.js';
import { openHome } from './home.js';
import { ensureSecretsKeys } from './secrets.js';
import { UsageError } from './usage.js';
import { findVm, requireFree, requireHostname } from './vm-commands.js';
import { VM_DEFAULTS } from './vms.js';

const ADDRESS = /^([^@]+)@(?:\[([^\]]+)\]|([^:@[\]]+))(?::(\d{1,5}))?$/;
const MAX_KEY_FILE = 20_000;

/** A machine that was reached, and what to write down of it. */
interface Reached {
  provider: 'adopted-qemu' | 'guest-agent' | 'ssh';
  connection: Prisma.InputJsonObject;
  credential?: Buffer;
  facts: GuestFacts;
  powerState: string;
}

export const adoptCommands: Record<string, Command> = {
  'vm adopt': {
    args: ['HOSTNAME'],
    options: ['qmp', 'agent', 'ssh', 'key', 'host-key', 'password-stdin', 'project', 'user', 'host', 'exec'],
    async run(context, [hostname], options) {
      requireHostname(hostname!);
      const projectId = await projectOf(context, options);
      await requireFree(context, projectId, hostname!);

      const { facts, credential, ...found } = await reach(options);
      const same = { provider: found.provider, connection: { equals: found.connection } };
      const known = await context.db.vm.findFirst({ where: same });
      if (known) throw new UsageError(`This machine is VM ${known.hostname} (${known.id}) already.`);

      const id = newId();
      const { cpus, memoryMb, diskGb } = facts;
      const host = options.host ?? VM_DEFAULTS.host;
      const sealed = credential && storedSecrets(context).seal('vms', id, credential);
      const args = { hostname, provider: found.provider, host };
      await context.change('vm adopt', args, (tx) =>
        tx.vm.create({
          data: {
            ...{ id, projectId, hostname: hostname!, host, image: 'adopted', cpus, memoryMb, diskGb },
            ...found,
            credential: sealed,
            execEnabled: options.exec ?? false,
          },
        }),
      );
      console.log(`Reached ${facts.hostname}: ${facts.system}, ${cpus} CPUs, ${memoryMb} MB, ${diskGb} GB.`);
      console.log(`${hostname} (${id}) is adopted; workers of host ${host} reach it.`);
      if (!options.exec) console.log('Commands may not be run in it until set_vm_exec_enabled allows them.');
    },
  },

  'vm forget': {
    args: ['VM'],
    async run(context, [reference]) {
      const vm = await findVm(context, reference!);
      if (!vm.connection)
        throw new UsageError(`Longhaul made ${vm.hostname}: delete it instead, with the tool delete_vm.`);
      const unfinished = { notIn: [...FINAL_STATES] };
      const busy = await context.db.job.findFirst({ where: { vmId: vm.id, state: unfinished } });
      if (busy)
        throw new UsageError(`Job ${busy.id} (${busy.kind}) is ${busy.state} there. Cancel it first.`);
      await context.change('vm forget', { id: vm.id, hostname: vm.hostname }, (tx) => forgetVm(tx, vm.id));
      console.log(`${vm.hostname} (${vm.id}) is forgotten. The machine goes on as it was.`);
    },
  },
};

async function projectOf(context: Context, { project = [], user }: Options): Promise<string> {
  if (project.length === 0) return (await ownerOf(context, user)).projectId;
  if (project.length > 1 || user) throw new UsageError('Give one --project, or a --user.');
  const found = await context.db.project.findUnique({ where: { name: project[0] } });
  if (!found) throw new UsageError(`There is no project ${project[0]}.`);
  return found.id;
}

/** Nothing is written down of a machine that cannot be reached. */
async function reach(options: Options): Promise<Reached> {
  // The locks of the VM that is to be are elsewhere, as it has no id yet.
  const locks = join(openHome().directory, 'locks', `adopt-${randomUUID()}`);
  try {
    if (options.ssh && !options.qmp && !options.agent) return await reachBySsh(options, locks);
    if (options.agent && !options.ssh && !options.key && !options['host-key'])
      return await reachByAgent(options.agent, options.qmp, locks);
  } catch (error) {
    if (error instanceof AppError) throw new UsageError(error.message);
    throw error;
  } finally {
    rmSync(locks, { recursive: true, force: true });
  }
  throw new UsageError(
    'Give either --agent, with --qmp where there is one, or --ssh with --host-key and --key.',
  );
}

async function reachByAgent(path: string, qmp: string | undefined, locks: string): Promise<Reached> {
  const agent = resolve(path);
  const found = qmp
    ? { provider: 'adopted-qemu' as const, connection: await connectionOf(resolve(qmp), agent, locks) }
    : { provider: 'guest-agent' as const, connection: checked(guestAgentConnection, { agent }) };
  const facts = await inspectGuest(new AgentChannel({ socketPath: agent, lockDirectory: locks }));
  return { ...found, facts, powerState: 'running' };
}

async function connectionOf(qmp: string, agent: string, locks: string) {
  const { uuid, state } = await inspectQemu(qmp, locks);
  if (state !== 'running') throw new UsageError(`The VM on ${qmp} is ${state}; it has to run.`);
  return checked(qemuConnection, { qmp, agent, uuid });
}

async function reachBySsh(options: Options, lockDirectory: string): Promise<Reached> {
  const [, user, bracketed, plain, port = '22'] = ADDRESS.exec(options.ssh!) ?? [];
  if (!user) throw new UsageError('--ssh takes USER@HOST or USER@HOST:PORT.');
  const given = options['host-key'];
  if (!given) throw new UsageError('--host-key is missing: docs/adopting.md says how to find it.');
  parseHostKey(given);
  const host = bracketed ?? plain;
  const connection = checked(sshConnection, { host, port: Number(port), user, hostKey: given });
  const credential = checked(sshCredential, await credentialOf(options));
  const channel = new SshChannel({ ...connection, ...credential, lockDirectory });
  try {
    const facts = await inspectGuest(channel);
    return {
      provider: 'ssh',
      // The whole key, so that the machine may get more keys of other kinds.
      connection: { ...connection, hostKey: channel.hostKey! },
      credential: Buffer.from(JSON.stringify(credential)),
      facts,
      powerState: 'running',
    };
  } finally {
    channel.close();
  }
}

async function credentialOf({ key, 'password-stdin': asks }: Options): Promise<object> {
  if (Boolean(key) === Boolean(asks)) throw new UsageError('Give --key FILE, or --password-stdin.');
  if (!key) return { password: (await text(process.stdin)).replace(/\r?\n$/, '') };
  if (!statSync(key, { throwIfNoEntry: false })?.isFile()) throw new UsageError(`There is no file ${key}.`);
  if (statSync(key).size > MAX_KEY_FILE) throw new UsageError(`${key} is no private key for SSH.`);
  const privateKey = readFileSync(key, 'utf8');
  checkPrivateKey(privateKey);
  return { privateKey };
}

function checked<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new UsageError(z.prettifyError(parsed.error));
  return parsed.data;
}

const storedSecrets = (context: Context) =>
  new StoredSecrets(context.db, new Secrets(ensureSecretsKeys(openHome())));
