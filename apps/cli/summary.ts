import type { ReadyFile } from './ready-file.js';

/** What `up` prints when all is ready. */
export function summary({ mcp_url: url, token, vm_id: vmId }: ReadyFile): string {
  const cursor = { mcpServers: { longhaul: { url, headers: { Authorization: `Bearer ${token}` } } } };
  return `
Longhaul is ready.

  MCP address  ${url}
  Token        ${token}
  First VM     ${vmId} (running commands in it is switched on; for further VMs it is off until you say so)

Claude Code
  claude mcp add --transport http longhaul ${url} --header "Authorization: Bearer ${token}"

Cursor (~/.cursor/mcp.json)
  ${JSON.stringify(cursor)}

curl
  curl -s ${url} -H 'Authorization: Bearer ${token}' -H 'Content-Type: application/json' \\
    -H 'Accept: application/json, text/event-stream' \\
    -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_vms","arguments":{}}}'
`;
}
