// How much more jobs that wait 1 s three workers do than one, each with 20 of them at once.
import { CONCURRENCY, QueueBench } from './queue.js';
import { round } from './figures.js';

const SECONDS = 10;

export default async function workers(): Promise<object> {
  const bench = await QueueBench.start();
  const running = [];
  try {
    const rates = [];
    for (const count of [1, 3]) {
      while (running.length < count) running.push(await bench.startWorker());
      rates.push(await bench.rate(await bench.submit(count * CONCURRENCY * SECONDS, 1)));
    }
    console.log(`workers: 1 does ${round(rates[0]!)} waiting jobs a second, 3 do ${round(rates[1]!)}`);
    return { workers_1_to_3: round(rates[1]! / rates[0]!) };
  } finally {
    await Promise.all(running.map(({ end }) => end()));
    await bench.stop();
  }
}
