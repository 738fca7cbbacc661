import { envSwitch } from '@longhaul/config';
import { z } from 'zod';

export const mcpConfig = z.object({
  MCP_SESSIONS: envSwitch
    .default(false)
    .describe(
      'Whether clients of revision 2025-11-25 get a session, through which they can be asked and told things. Replicas then need affinity by Mcp-Session-Id',
    ),
});
