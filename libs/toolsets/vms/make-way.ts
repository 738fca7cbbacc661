import { isFinal } from '@longhaul/jobs';
import type { Call } from '@longhaul/mcp';
import type { Vm } from '@longhaul/persistence';
import { z } from 'zod';

export const force = z
  .boolean()
  .default(false)
  .describe('Cancels what runs in the VM first; else the call is refused while anything does');

/** What is cancelled has this long to end; what has not then is in the way still. */
const END_MS = 30_000;

/** Cancels all that works in the call's VM and waits for it to end. */
export async function makeWay(call: Call<{ vm: Vm; job: undefined }>): Promise<void> {
  const inTheWay = await call.services.db.job.findMany({
    where: {
      vmId: call.vm.id,
      slot: { in: ['command', 'files', 'data'] },
      state: { in: ['queued', 'running', 'awaiting_input'] },
    },
    select: { id: true },
  });
  for (const { id } of inTheWay) await call.cancel(id);
  for (const { id } of inTheWay) await call.waitFor(id, ({ state }) => isFinal(state), END_MS);
}
