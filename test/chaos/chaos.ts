import { setTimeout as pause } from 'node:timers/promises';
import { setLogLevel } from '@longhaul/telemetry';
import { Cluster } from '../support/cluster.js';
import { makeUser } from '../support/database.js';
import { CarefulClient } from './client.js';
import { Faults, processesWith } from './faults.js';
import { leftovers } from './leftovers.js';
import { AgentMachine, type Machine } from './machines.js';
import { Oracle, VERDICTS, explain, type Violation } from './oracle.js';
import { Random } from './random.js';
import { schedule } from './schedule.js';
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
const USERS = 3;
/** After the last fault, for all jobs to end and all traces to go. Nothing is judged by how long it took. */
const SETTLE_MS = 300_000;

/** A workload under faults, all of it from the seed; what it finds wrong is said, and counted in the summary. */
export async function chaos({ seed, jobs, minutes, vms, say, keep }: ChaosOptions): Promise<Summary> {
  setLogLevel('fatal');
  const cluster = await Cluster.start({ env: { NODE_NO_WARNINGS: '1' } });
  const url = `${cluster.stack.url}/x/all`;
  const { home } = cluster.stack;
  let summary: Summary;
  try {
    const machines = await makeMachines(cluster, vms);
    const names = [...cluster.members.keys()];
    const shape = {
      apis: names.filter((name) => name.startsWith('api')),
      workers: names.filter((name) => name.startsWith('worker')),
      servers: [...cluster.servers.keys()],
      agents: machines.filter(({ name }) => name.startsWith('agent')).map(({ name }) => name),
      vms: machines.filter(({ name }) => name.startsWith('vm')).map(({ name }) => name),
    };
    const durationMs = minutes * 60_000;
    const random = new Random(seed);
    const planned = schedule(random, durationMs, shape);
    const wanted = wishes(random, jobs, durationMs, machines);
    say(`seed ${seed}: ${wanted.length} jobs and ${planned.length} faults in ${minutes} minutes`);

    const faults = new Faults(cluster, new Map(machines.map((machine) => [machine.name, machine])), say);
    const clientsOver = new AbortController();
    const client = new CarefulClient(url, clientsOver.signal);
    const working = work(client, wanted);
    await faults.run(planned, clientsOver.signal);
    say('all is healed');
    const timer = setTimeout(() => clientsOver.abort(), SETTLE_MS);
    const submissions = await working;
    clearTimeout(timer);
    say(
      `all is submitted; answers were ${[...client.codes].map(([code, count]) => `${count} ${code}`).join(', ')}`,
    );
    const left = await settled(cluster, machines, say);
    say('judging');
    const judge = new CarefulClient(url, AbortSignal.timeout(SETTLE_MS));
    client.answered.forEach((id) => judge.answered.add(id));
    const oracle = new Oracle(cluster.stack.database, judge);
    await oracle.judge(submissions);
    const violations = [
      ...oracle.violations,
      ...left.map((what): Violation => ({ verdict: 'leftovers', what })),
    ];
    for (const violation of violations)
      say(await explain(violation, cluster.stack.database, faults.happened));
    const counts = VERDICTS.map((verdict) => [
      verdict,
      violations.filter((one) => one.verdict === verdict).length,
    ]);
    summary = {
      ...{ seed, jobs: submissions.length, faults: faults.happened.length },
      ...(Object.fromEntries(counts) as Record<Violation['verdict'], number>),
      crashes: faults.crashes.length,
    };
    await keep?.(cluster);
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

async function makeMachines(cluster: Cluster, _vms: number): Promise<Machine[]> {
  const { db } = cluster.stack.database;
  const users = [];
  for (let count = 0; count < USERS; count++) users.push(await makeUser(db));
  const machines: Machine[] = [];
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
