import type { KillSwitch, Transaction } from '@longhaul/persistence';
import type { SwitchName } from './caller.js';

/**
 * What can be switched off for everybody, at once and apart. Both are read in the statement that looks a caller up, so they are
 * in force on every replica with its next request.
 */
export const SWITCHES: Readonly<Record<SwitchName, string>> = {
  mcp: 'every request below /mcp',
  exec: 'running commands: calls that want to are refused, and what is queued does not start',
};

/** Longest reason; everybody who is refused reads it. */
export const REASON_MAX = 500;

/** All switches, those that were never touched as well. */
export async function listSwitches(tx: Transaction): Promise<KillSwitch[]> {
  const rows = await tx.killSwitch.findMany();
  return (Object.keys(SWITCHES) as SwitchName[]).map(
    (name) =>
      rows.find((row) => row.name === name) ?? {
        name,
        engaged: false,
        reason: null,
        actor: '',
        changedAt: new Date(0),
      },
  );
}

/**
 * `engaged` forbids what the switch guards. In force with the commit. Who calls writes the audit, and for `exec` sees to the jobs
 * there are (Jobs.cancelCommands, Jobs.redeliverCommands).
 */
export function setSwitch(
  tx: Transaction,
  name: SwitchName,
  engaged: boolean,
  { actor, reason = '' }: { actor: string; reason?: string },
): Promise<KillSwitch> {
  const data = { engaged, actor, reason: reason.slice(0, REASON_MAX) || null, changedAt: new Date() };
  return tx.killSwitch.upsert({ where: { name }, create: { name, ...data }, update: data });
}
