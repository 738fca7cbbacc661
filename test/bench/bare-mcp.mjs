// What test/bench/mcp.ts measures against: one tool on the SDK alone, put together as the SDK's documentation shows it. The
// schemas are made once, as it makes the bare server faster. BARE_ANSWER is what the tool answers.
import { createServer } from 'node:http';
import {
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
} from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { z } from 'zod';

const output = JSON.parse(process.env.BARE_ANSWER);
const inputSchema = z.object({});
const outputSchema = z.object({
  user_id: z.string(),
  email: z.string(),
  token_id: z.string(),
  scopes: z.array(z.string()),
  project_ids: z.array(z.string()),
});

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'bare', version: '1.0.0' });
  server.registerTool(
    'whoami',
    { description: 'Shows whose token this is.', inputSchema, outputSchema },
    async () => ({
      content: [{ type: 'text', text: JSON.stringify(output) }],
      structuredContent: output,
    }),
  );
  return server;
});

const nodeHandler = toNodeHandler(handler);
const validateHost = localhostHostValidation();
const validateOrigin = localhostOriginValidation();
const server = createServer((request, response) => {
  if (validateHost(request, response) && validateOrigin(request, response))
    void nodeHandler(request, response);
});
server.listen(0, '127.0.0.1', () => process.send({ type: 'ready', port: server.address().port }));
process.on('disconnect', () => process.exit(0));
