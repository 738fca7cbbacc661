/** What a token may do; a tool declares which one it needs. */
export const SCOPES = [
  'vms:read',
  'vms:power',
  'vms:exec',
  'vms:files',
  'vms:console',
  'services:read',
  'services:write',
  'projects:read',
  'projects:write',
  'account:read',
  'billing:read',
  'search:read',
] as const;

export type Scope = (typeof SCOPES)[number];
