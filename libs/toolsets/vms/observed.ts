import type { Vm } from '@longhaul/persistence';
import { z } from 'zod';

const address = z.object({
  family: z.union([z.literal(4), z.literal(6)]),
  address: z.string(),
  kind: z.enum(['direct', 'forward', 'private']),
  ports: z.array(z.object({ protocol: z.string(), guest: z.number(), host: z.number() })).optional(),
});

/**
 * What workers note in `vms.observed`, besides the power state. Keys that end in `_at` (ISO 8601) are ages: when they alone
 * change, nobody is told.
 */
const observedShape = z.object({
  /** Of the VM's provider; missing until it was first looked at. */
  abilities: z.array(z.string()).optional(),
  addresses: z.array(address).default([]),
  /** `unknown` while the VM does not run. */
  agent: z.enum(['answers', 'silent', 'unknown']).default('unknown'),
  agent_seen_at: z.string().optional(),
  /** When it was last asked, whether it answered or not. */
  agent_asked_at: z.string().optional(),
  /** Of the guest's root file system; it stays when the VM is switched off. */
  disk_used_percent: z.int().optional(),
  /** Less than 1 % of it is free. */
  disk_full: z.boolean().optional(),
  disk_seen_at: z.string().optional(),
});

export type Observed = z.output<typeof observedShape>;

/** What was last seen of a VM, be it nothing. */
export const observedOf = ({ observed }: Pick<Vm, 'observed'>): Observed =>
  observedShape.parse(observed ?? {});
