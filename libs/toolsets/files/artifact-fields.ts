import type { Artifact } from '@longhaul/persistence';
import { z } from 'zod';

const MIB = 1024 * 1024;

/** What a file is for decides how large it may be and with which mode it is installed. */
export const PURPOSES = {
  config: { maxBytes: MIB, mode: '0640' },
  script: { maxBytes: 5 * MIB, mode: '0750' },
  file: { maxBytes: 256 * MIB, mode: '0644' },
} as const satisfies Record<Artifact['purpose'], object>;

export const FILE_MAX_BYTES = PURPOSES.file.maxBytes;

export const artifactId = z.string().min(1).max(64).describe('From create_artifact_upload');

export const artifactShape = {
  artifact_id: z.string(),
  vm_id: z.string(),
  filename: z.string(),
  purpose: z.enum(['config', 'script', 'file']),
  size_bytes: z.int(),
  sha256: z.string(),
};

export const artifactFields = ({ id, vmId, filename, purpose, sizeBytes, sha256 }: Artifact) => ({
  artifact_id: id,
  vm_id: vmId,
  filename,
  purpose,
  size_bytes: Number(sizeBytes),
  sha256: Buffer.from(sha256).toString('hex'),
});
