import { AppError } from '@longhaul/errors';
import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { artifactFields, artifactId, artifactShape } from './artifact-fields.js';

/** What is not there yet is a state, not a failure. */
const WAITING = new Set(['artifact_not_uploaded', 'artifact_expired']);

export const getArtifact = defineTool({
  name: 'get_artifact',
  title: 'Get an artifact',
  description:
    'Says whether the file of create_artifact_upload has arrived. When what arrived is not what was announced, it is dropped, the error says why, and it can be sent again while the address is valid.',
  toolset: 'files',
  scope: 'vms:exec',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ artifact_id: artifactId }),
  output: z.object({
    ...artifactShape,
    state: z.enum(['pending', 'uploaded', 'expired']),
    created_at: z.string(),
    uploaded_at: z.string().optional(),
    expires_at: z
      .string()
      .describe('Of one that is pending: when the upload must have begun; else its deletion'),
  }),
  async handle({ caller, request, services }, { artifact_id: id }) {
    const { artifacts } = services;
    const found = await artifacts.find(caller, id);
    const { requestId, ip, userAgent } = request;
    const artifact = await artifacts
      .confirmUploaded(found, { requestId, ip, userAgent })
      .catch((thrown: unknown) => {
        if (thrown instanceof AppError && WAITING.has(thrown.code)) return found;
        throw thrown;
      });
    return {
      ...artifactFields(artifact),
      state: await artifacts.stateOf(artifact),
      created_at: artifact.createdAt.toISOString(),
      uploaded_at: artifact.uploadedAt?.toISOString(),
      expires_at: (artifact.uploadedAt ? artifact.expiresAt : artifact.uploadUntil).toISOString(),
    };
  },
});
