// A process that the lock's spec starts: node … lock-child.ts <directory> <hold | try | count | crowd> [<hold ms> | <times> | <ms of each>]
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { withLock } from '../../libs/guest/lock.js';

const [directory = '', mode, number] = process.argv.slice(2);

if (mode === 'hold') {
  await withLock({ directory, name: 'vm', holdMs: Number(number) }, async () => {
    console.log('held');
    await new Promise(() => setInterval(() => {}, 1000));
  }).catch((error: Error) => console.log(error.message));
  process.exit();
}

if (mode === 'try') {
  const code = await withLock({ directory, name: 'vm', waitMs: 0 }, async () => 0).catch(() => 1);
  process.exit(code);
}

if (mode === 'crowd') {
  console.log('held');
  const one = async (): Promise<void> => {
    await withLock({ directory, name: 'vm', waitMs: 60_000 }, () => sleep(Number(number)));
    return one();
  };
  await Promise.all([one(), one(), one()]);
}

const counter = join(directory, 'counter');
for (let time = 0; time < Number(number); time++) {
  await withLock({ directory, name: 'vm', waitMs: 60_000 }, async () => {
    const before = Number(readFileSync(counter, 'utf8'));
    // Time for others to interfere, if the lock let them.
    await new Promise((resolve) => setImmediate(resolve));
    writeFileSync(counter, String(before + 1));
  });
}
