// What test/bench/mcp.ts and submit.ts measure against: one tool on the SDK alone, put together as the SDK's documentation
// shows it. The schemas are made once, as it makes the bare server faster. `whoami` answers BARE_ANSWER; with BARE_QUEUE, the
// URL of a Redis, the tool is start_vm_command and only calls queue.add.
import { createServer } from 'node:http';
import {
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
} from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { Queue } from 'bullmq';
import { z } from 'zod';

const tools = {
  whoami() {
    const output = JSON.parse(process.env.BARE_ANSWER);
    const inputSchema = z.object({});
    const outputSchema = z.object({
      user_id: z.string(),
      email: z.string(),
      token_id: z.string(),
      scopes: z.array(z.string()),
      project_ids: z.array(z.string()),
    });
    return { inputSchema, outputSchema, answer: () => output };
  },
  start_vm_command() {
    const queue = new Queue('bare', { connection: { url: process.env.BARE_QUEUE } });
    const inputSchema = z.object({ vm_id: z.string(), command: z.string() });
    const outputSchema = z.object({ command_id: z.string(), status: z.string() });
    const answer = async (input) => ({ command_id: (await queue.add('job', input)).id, status: 'queued' });
    return { inputSchema, outputSchema, answer };
  },
};
const name = process.env.BARE_QUEUE ? 'start_vm_command' : 'whoami';
const { inputSchema, outputSchema, answer } = tools[name]();

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'bare', version: '1.0.0' });
  server.registerTool(name, { description: 'A tool.', inputSchema, outputSchema }, async (input) => {
    const output = await answer(input);
    return { content: [{ type: 'text', text: JSON.stringify(output) }], structuredContent: output };
  });
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
