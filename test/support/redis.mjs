import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/** A redis-server on that port of the loopback, which writes nothing to the disk. Resolves once it takes connections. */
export async function startRedis(port, directory) {
  const args = [
    '--port',
    port,
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    directory,
  ];
  const redis = spawn('redis-server', args.map(String), { stdio: 'ignore' });
  const ended = once(redis, 'exit');
  await Promise.race([accepts(port), ended.then(() => Promise.reject(new Error('redis-server ended')))]);
  const stop = async (signal) => {
    redis.kill(signal);
    await ended;
  };
  return { url: `redis://127.0.0.1:${port}`, pid: redis.pid, stop };
}

/** Resolves once somebody listens on the port. */
async function accepts(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (open) return;
    await pause(20);
  }
}
