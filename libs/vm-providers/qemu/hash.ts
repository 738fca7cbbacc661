import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Short enough for a folder name. */
export const hash = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);

/** Over names and contents of files, and of all files in folders, below `directory`; and over `more`. */
export async function hashOfFiles(directory: string, names: string[], more: unknown): Promise<string> {
  const files = await Promise.all(
    names.map(async (name) => {
      if ((await stat(join(directory, name))).isFile()) return [name];
      const entries = await readdir(join(directory, name), { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1));
    }),
  );
  const contents = await Promise.all(
    files
      .flat()
      .sort()
      .map(async (file) => [file, await readFile(join(directory, file), 'utf8')]),
  );
  return hash(JSON.stringify([contents, more]));
}
