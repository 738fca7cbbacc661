// Submissions through MCP (start_vm_command: row, audit, slot, delivery to Redis) against a server of the SDK alone whose tool
// only calls queue.add on the same Redis. No worker runs.
import { join } from 'node:path';
import type { Database } from '@longhaul/persistence';
import { TEST_SECRETS_KEYS, makeHost, makeUser, makeVm, testDatabase } from '../support/database.js';
import { median, percentile, round } from './figures.js';
import { postmasterOf, processorMs, serverMs } from './processor.js';
import { callsPerSecond, startSide, stopSide, type Side } from './sides.js';

const API = join(import.meta.dirname, '../../dist/apps/api/main.js');
const BARE = join(import.meta.dirname, 'bare-mcp.mjs');
const ROUNDS = 7;
const ROUND_MS = 2_000;
/** Each takes one command at a time: more than a round submits. */
const VMS = 10_000;

export default async function submit(): Promise<object> {
  const database = await testDatabase();
  const sides: Side[] = [];
  try {
    const { db, url } = database;
    const { token, caller } = await makeUser(db);
    await db.project.updateMany({ data: { liveJobLimit: VMS } });
    await makeHost(db);
    const model = await makeVm(db, caller);
    const vms = await db.$queryRaw<{ id: string }[]>`
      INSERT INTO vms SELECT (jsonb_populate_record(model, jsonb_build_object('id', gen_random_uuid(), 'hostname', 'vm-' || n))).*
      FROM vms AS model, generate_series(1, ${VMS}::int) AS n WHERE model.id = ${model.id}::uuid RETURNING id`;
    let turn = 0;
    const next = () => ({ vm_id: vms[turn++ % VMS]!.id, command: 'true' });
    const call = { tool: 'start_vm_command', next };
    const redis = process.env.TEST_REDIS_URL!;
    const env = {
      DATABASE_URL: url,
      QUEUE_URL: redis,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
      PORT: '0',
      LOG_LEVEL: 'warn',
      RATE_CALLS: '1000000',
      RATE_VM_CALLS: '0',
      RATE_SUBMISSIONS: '0',
    };
    const ours = await startSide(API, env, '/mcp', token, call);
    sides.push(ours);
    const bare = await startSide(BARE, { BARE_QUEUE: redis }, '/mcp', token, call);
    sides.push(bare);

    const postmaster = await postmasterOf(db);
    const spent = () => ({
      api: processorMs(ours.process.pid!),
      postgres: serverMs(postmaster),
      bare: processorMs(bare.process.pid!),
    });
    const before = spent();
    const rates: number[] = [];
    const p99s: number[] = [];
    // In turns, so that what else the machine does meets both; the first is to warm up.
    for (let n = -1; n < ROUNDS; n++) {
      ours.times = [];
      bare.times = [];
      const rate = { ours: await callsPerSecond(ours, ROUND_MS), bare: await callsPerSecond(bare, ROUND_MS) };
      await freeSlots(db);
      if (n < 0) continue;
      const p99 = { ours: percentile(ours.times, 0.99), bare: percentile(bare.times, 0.99) };
      console.log(
        `submit: Longhaul ${Math.round(rate.ours)}/s, p99 ${round(p99.ours, 1)} ms; ` +
          `bare ${Math.round(rate.bare)}/s, p99 ${round(p99.bare, 1)} ms`,
      );
      rates.push(rate.ours / rate.bare);
      p99s.push(p99.ours / p99.bare);
    }
    const after = spent();
    const perCall = (name: keyof typeof after, { answered }: Side) =>
      round((after[name] - before[name]) / answered);
    console.log(
      `submit: one takes ${perCall('api', ours)} ms of a processor and PostgreSQL's ${perCall('postgres', ours)}, ` +
        `of the bare server ${perCall('bare', bare)} ms`,
    );
    return { submit_ratio: round(median(rates)), submit_p99_ratio: round(median(p99s)) };
  } finally {
    await Promise.all(sides.map(stopSide));
    await database.drop();
  }
}

/** As if all had run. */
async function freeSlots(db: Database): Promise<void> {
  await db.$executeRaw`UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE state = 'queued'`;
}
