import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';

export const whoami = defineTool({
  name: 'whoami',
  title: 'Who am I',
  description: 'Shows whose token this is, what it may do (scopes) and in which projects.',
  toolset: 'account',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({}),
  output: z.object({
    user_id: z.string(),
    email: z.string(),
    token_id: z.string(),
    scopes: z.array(z.string()),
    project_ids: z.array(z.string()),
  }),
  async handle({ caller }) {
    const { userId, email, tokenId, scopes, projectIds } = caller;
    return { user_id: userId, email, token_id: tokenId, scopes, project_ids: projectIds };
  },
});
