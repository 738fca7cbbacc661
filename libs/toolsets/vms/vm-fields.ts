import { HOST_SILENT_SECONDS } from '@longhaul/jobs';
import type { Database, Vm } from '@longhaul/persistence';
import { z } from 'zod';
import { observedOf } from './observed.js';
import { POWER_ACTIONS } from './vm-power.job.js';

/** How an answer shows a VM. Times are ISO 8601. */
export const vmShape = {
  id: z.string(),
  hostname: z.string(),
  project_id: z.string(),
  status: z.string().describe('power_state, or host_unreachable when nobody can reach the VM now'),
  power_state: z.string(),
  observed_at: z.string().nullable().describe('When power_state was last seen'),
  location: z.string(),
  plan: z.string(),
  image: z.string(),
  primary_ipv4: z.string().nullable(),
  primary_ipv6: z.string().nullable(),
  mcp_exec_enabled: z.boolean().describe('Whether commands may be run in it'),
  power_controls_supported: z.array(z.string()),
  guest_agent: z.string().describe('answers, silent, or unknown while the VM does not run'),
  guest_agent_seen_at: z.string().nullable().describe('When it last answered'),
  disk_used_percent: z.number().nullable().describe("Of the guest's root"),
  disk_full: z.boolean().nullable(),
  disk_seen_at: z.string().nullable(),
};

type VmFields = z.output<z.ZodObject<typeof vmShape>>;

export async function vmFields(db: Database, vms: Vm[]): Promise<VmFields[]> {
  const names = [...new Set(vms.map((vm) => vm.host))];
  const alive = await db.$queryRaw<{ name: string }[]>`
    SELECT name FROM hosts WHERE name = ANY(${names})
      AND beat_at > now() - ${HOST_SILENT_SECONDS} * interval '1 second'`;
  const reachable = new Set(alive.map(({ name }) => name));
  return vms.map((vm) => ({
    ...observedFields(vm),
    id: vm.id,
    hostname: vm.hostname,
    project_id: vm.projectId,
    status: reachable.has(vm.host) ? vm.powerState : 'host_unreachable',
    power_state: vm.powerState,
    observed_at: vm.observedAt?.toISOString() ?? null,
    location: vm.host,
    plan: `${vm.cpus} vCPU, ${vm.memoryMb} MB, ${vm.diskGb} GB`,
    image: vm.image,
    mcp_exec_enabled: vm.execEnabled,
  }));
}

/** What workers saw, none of it before they first looked. */
function observedFields(vm: Vm) {
  const seen = observedOf(vm);
  const primary = (family: 4 | 6) =>
    seen.addresses.find((each) => each.kind === 'direct' && each.family === family)?.address ?? null;
  return {
    primary_ipv4: primary(4),
    primary_ipv6: primary(6),
    power_controls_supported: seen.abilities?.includes('power') === false ? [] : [...POWER_ACTIONS],
    guest_agent: seen.agent,
    guest_agent_seen_at: seen.agent_seen_at ?? null,
    disk_used_percent: seen.disk_used_percent ?? null,
    disk_full: seen.disk_full ?? null,
    disk_seen_at: seen.disk_seen_at ?? null,
  };
}
