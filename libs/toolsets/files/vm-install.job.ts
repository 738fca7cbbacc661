import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

const payload = z.strictObject({
  artifact_id: z.string(),
  destination_path: z.string(),
  /** Octal without leading zeros. */
  mode: z.string(),
  owner: z.string(),
  backup: z.boolean(),
});

const result = z.strictObject({
  /** False when the file was there already, with the same content, mode and owner. */
  changed: z.boolean(),
  size_bytes: z.int(),
  sha256: z.string(),
});

export type VmInstallPayload = z.output<typeof payload>;
export type VmInstallResult = z.output<typeof result>;

/** Puts an artifact into place in its VM, whole or not at all. Repeating it is harmless, so a lost attempt is taken up again. */
export const vmInstall = defineJobKind({
  name: 'vm.install',
  version: 1,
  payload,
  result,
  scope: 'vms:exec',
  slot: 'files',
  exec: true,
  lane: 'bulk',
  queueSeconds: 900,
  runSeconds: () => 1_800,
});
