import { setTimeout as pause } from 'node:timers/promises';
import { setLogLevel } from '@longhaul/telemetry';
import { Cluster } from '../support/cluster.js';
import { makeUser } from '../support/database.js';
import { processesWith } from '../support/processes.js';
import { CarefulClient } from './client.js';
import { Faults } from './faults.js';
import { leftovers } from './leftovers.js';
import { AgentMachine, type Machine } from './machines.js';
import { Oracle, explain, type Violation } from './oracle.js';
import { QemuMachine } from './qemu-machine.js';
import { Random } from './random.js';
import { schedule, type Shape } from './schedule.js';
import { wishes, work } from './workload.js';

export interface ChaosOptions {
  seed: number;
  jobs: number;
  minutes: number;
  vms: number;
  say: (text: string) => void;
  /** Called before the cluster ends. */
  keep?: (cluster: Cluster) => Promise<void>;
}

/** `crashes`: processes that ended though nobody had told them to. */
export type Summary = Record<'seed' | 'jobs' | 'faults' | Violation['verdict'] | 'crashes', number>;

const AGENTS = 6;
const COMMAND_SLOTS = 8;
const SLOW_COMMAND_SLOTS = 2;
const USERS = 3;
/** After the last fault, for all jobs to end and all traces to go. Nothing is judged by how long it took. */
const SETTLE_MS = 300_000;

/** A workload under faults, all of it from the seed; what it finds wrong is said, and counted in the summary. */
export async function chaos(options: ChaosOptions): Promise<Summary> {
  setLogLevel('fatal');
  const { say } = options;
  const cluster = await Cluster.start({ env: { NODE_NO_WARNINGS: '1' } });
  const { home } = cluster.stack;
  let summary: Summary;
  try {
    summary = await run(cluster, options);
    await options.keep?.(cluster);
  } catch (error) {
    // What stopping the cluster throws would take its place.
    say(String((error as Error).stack));
    throw error;
  } finally {
    await cluster.stop();
  }
  for (const { pid, command } of processesWith((text) => text.includes(home))) {
    say(`LEFTOVERS: process ${pid}: ${command}`);
    summary.leftovers++;
  }
  return summary;
}

async function run(cluster: Cluster, { seed, jobs, minutes, vms, say }: ChaosOptions): Promise<Summary> {
  const { url, database } = cluster.stack;
  const durationMs = minutes * 60_000;
  const submitting = new AbortController();
  const client = new CarefulClient(`${url}/x/all`, submitting.signal);
  const judge = new CarefulClient(`${url}/x/all`, AbortSignal.timeout(durationMs + 12 * SETTLE_MS));
  const machines = await makeMachines(cluster, vms, judge);

  const random = new Random(seed);
  const planned = schedule(random, durationMs, shapeOf(cluster, machines));
  const wanted = wishes(random, jobs, durationMs, machines);
  say(`seed ${seed}: ${wanted.length} jobs and ${planned.length} faults in ${minutes} minutes`);
  const faults = new Faults(cluster, new Map(machines.map((machine) => [machine.name, machine])), say);
  const working = work(client, wanted);
  await faults.run(planned);
  say('all is healed');
  // A busy machine needs its time, as long as it gets on.
  const timer = setTimeout(() => submitting.abort(), SETTLE_MS);
  client.onAnswer = () => timer.refresh();
  const submissions = await working;
  clearTimeout(timer);
  const answers = [...client.codes].map(([code, count]) => `${count} ${code}`);
  say(`all is submitted; answers were ${answers.join(', ')}`);

  const left = await settled(cluster, machines, say);
  say('judging');
  client.answered.forEach((id) => judge.answered.add(id));
  const violations = [
    ...(await new Oracle(database, judge).judge(submissions)),
    ...left.map((what): Violation => ({ verdict: 'leftovers', what })),
  ];
  for (const violation of violations) say(await explain(violation, database, faults.happened));
  const count = (verdict: Violation['verdict']) => violations.filter((one) => one.verdict === verdict).length;
  return {
    seed,
    jobs: submissions.length,
    faults: faults.happened.length,
    lost: count('lost'),
    run_twice: count('run_twice'),
    log_gaps: count('log_gaps'),
    leftovers: count('leftovers'),
    crashes: faults.crashes.length,
  };
}

function shapeOf({ members, servers }: Cluster, machines: Machine[]): Shape {
  const begins = (names: Iterable<string>, word: string) =>
    [...names].filter((name) => name.startsWith(word));
  const names = machines.map(({ name }) => name);
  return {
    apis: begins(members.keys(), 'api'),
    workers: begins(members.keys(), 'worker'),
    servers: [...servers.keys()],
    agents: begins(names, 'agent'),
    vms: begins(names, 'vm'),
  };
}

async function makeMachines(cluster: Cluster, vms: number, client: CarefulClient): Promise<Machine[]> {
  const { stack } = cluster;
  const { db } = stack.database;
  const made = await Promise.all(
    Array.from({ length: vms }, () => stack.createVm({ commandSlots: SLOW_COMMAND_SLOTS })),
  );
  const users = [];
  for (let count = 0; count < USERS; count++) users.push(await makeUser(db));
  const machines: Machine[] = made.map(
    (vm, index) => new QemuMachine(`vm-${index + 1}`, vm, stack.token, stack, client),
  );
  for (let number = 1; number <= AGENTS; number++) {
    const { token, caller } = users[number % USERS]!;
    const { vm, agent } = await cluster.addAgentVm({}, { caller, commandSlots: COMMAND_SLOTS });
    machines.push(new AgentMachine(`agent-${number}`, vm, token, agent));
  }
  return machines;
}

/** Waits until nothing is left behind, or answers what is after a long time. */
async function settled(
  cluster: Cluster,
  machines: Machine[],
  say: (text: string) => void,
): Promise<string[]> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const left = await leftovers(cluster, machines);
    if (left.length === 0 || performance.now() > deadline) return left;
    say(`${left.length} left, such as ${left[0]}`);
    await pause(3_000);
  }
}
