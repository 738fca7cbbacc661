import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

it('generated pages of docs/ say what the code declares', () => {
  const script = join(import.meta.dirname, '../scripts/generate-docs.mjs');
  const { status, stderr } = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
  // Names the pages that are out of date, and the command that writes them.
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.any(String) });
});
