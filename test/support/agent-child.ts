// A process that tests of the guest agent start: node … agent-child.ts <socket> <file> …
// Reads the files at once but closes none, says how many it should have closed by now, and waits to be killed.
import { createConnection } from 'node:net';
import { dirname } from 'node:path';
import { AgentChannel } from '../../libs/guest/agent/agent-channel.js';
import { AgentConnection } from '../../libs/guest/agent/connection.js';

type Call = (command: string, args?: Record<string, unknown>) => Promise<unknown>;

/** A channel under the lock of the namespace agent's own; `around` stands between its sessions and the agent. */
export function channelAround(socketPath: string, around: (call: Call) => Call): AgentChannel {
  const open = async (answerMs: number, over: AbortSignal) => {
    const connection = await AgentConnection.open(createConnection(socketPath), answerMs, over);
    const call = around((command, args) => connection.call(command, args));
    return {
      maxDataBytes: connection.maxDataBytes,
      call,
      violated: connection.violated.bind(connection),
      close: () => connection.close(),
    };
  };
  return new AgentChannel({ open, lockDirectory: dirname(socketPath) });
}

/** Closes nothing. `onIdle` is told how many closings were kept back, each time that no answer is on its way. */
export function neverClosing(onIdle: (kept: number) => void): (call: Call) => Call {
  let kept = 0;
  let underWay = 0;
  return (call) => async (command, args) => {
    if (command !== 'guest-file-close') {
      underWay++;
      return call(command, args).finally(() => --underWay === 0 && onIdle(kept));
    }
    kept++;
    if (underWay === 0) onIdle(kept);
    return new Promise(() => {});
  };
}

const [script, socketPath = '', ...paths] = process.argv.slice(1);
if (script === import.meta.filename) {
  const channel = channelAround(
    socketPath,
    neverClosing((kept) => console.log(`${kept} kept`)),
  );
  const forEver = setInterval(() => {}, 1_000);
  await channel.session((guest) => Promise.all(paths.map((path) => guest.readFile(path, 0, 100))), {
    holdMs: 600_000,
  });
  clearInterval(forEver);
}
