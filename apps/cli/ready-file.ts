import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Home } from './home.js';

/** What a client on this machine needs, for scripts and for the next start. Holds a token, so it is its owner's alone. */
export interface ReadyFile {
  mcp_url: string;
  api_url: string;
  token: string;
  vm_id: string;
}

export function readReadyFile({ directory }: Home): ReadyFile | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, 'ready.json'), 'utf8')) as ReadyFile;
  } catch {
    return undefined;
  }
}

export function writeReadyFile({ directory }: Home, ready: ReadyFile): void {
  const path = join(directory, 'ready.json');
  writeFileSync(`${path}.new`, `${JSON.stringify(ready, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
