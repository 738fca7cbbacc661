import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCatalog } from './index.js';

const folder = mkdtempSync(join(tmpdir(), 'lh-'));
afterAll(() => rmSync(folder, { recursive: true }));

const own = join(folder, 'own.yaml');
const entry = (name: string, more = '') =>
  `  - { name: ${name}, title: A, description: A, disk_gb: 2, source: { path: /srv/a.qcow2 }${more} }\n`;
const load = (text: string) => {
  writeFileSync(own, text);
  return loadCatalog(own);
};

describe('the catalogue of images', () => {
  it('has a default, and all it has are found by name and alias', async () => {
    const catalog = await loadCatalog();
    expect(catalog.find('default').name).toBe('debian-12');
    for (const image of catalog.images) expect(catalog.find(image.name)).toBe(image);
    expect(() => catalog.find('Windows 3.11')).toThrow(/no image Windows 3.11.*debian-12/);
  });

  it('adds and replaces entries of an own file, which may claim an alias', async () => {
    const catalog = await load(`images:\n${entry('busybox')}${entry('ours', ', aliases: [default, best]')}`);
    expect(catalog.find('default').name).toBe('ours');
    expect(catalog.find('best').name).toBe('ours');
    expect(catalog.find('debian-12').aliases).toEqual([]);
    expect(catalog.find('busybox').source).toEqual({ path: '/srv/a.qcow2' });
    expect(catalog.images.filter(({ name }) => name === 'busybox')).toHaveLength(1);
  });

  it('can do without the entries that come with it, but not without a default', async () => {
    const catalog = await load(`keep_built_in: false\nimages:\n${entry('default')}`);
    expect(catalog.images.map(({ name }) => name)).toEqual(['default']);
    await expect(load(`keep_built_in: false\nimages:\n${entry('ours')}`)).rejects.toThrow(/default/);
  });

  it.each([
    ['what is no YAML', 'images: ['],
    ['an unknown key', `images:\n${entry('a', ', size: 3')}`],
    ['a name that is a path', `images:\n${entry('../a')}`],
    ['a relative path', `images:\n${entry('a').replace('/srv', 'srv')}`],
    [
      'a URL without digest',
      `images:\n${entry('a').replace('path: /srv/a.qcow2', 'url: https://a/a.qcow2')}`,
    ],
    [
      'a file URL',
      `images:\n${entry('a').replace('path: /srv/a', `sha512: ${'0'.repeat(128)}, url: file:///a`)}`,
    ],
    ['a recipe that is a path', `images:\n${entry('a').replace('path: /srv/a.qcow2', 'recipe: ../../tmp')}`],
    ['a disk of no size', `images:\n${entry('a').replace('disk_gb: 2', 'disk_gb: 0')}`],
    ['aliases of YAML, which could grow without end', `a: &a [1]\nimages: [*a, *a]`],
    ['a file that is too large', `images: []\n${'#'.repeat(1 << 20)}`],
  ])('refuses %s', async (_what, text) => {
    await expect(load(text)).rejects.toThrow();
  });
});
