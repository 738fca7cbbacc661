import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AppError } from '@longhaul/errors';
import { parse } from 'yaml';
import { z } from 'zod';

const MAX_FILE_BYTES = 1 << 20;
const MAX_IMAGES = 200;

const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]{0,62}$/, 'must be lower-case letters, digits, dots, hyphens');
const sha512 = z.string().regex(/^[0-9a-f]{128}$/, 'must be a SHA-512 in lower-case hex');

/** Made on the host by `images/build.sh <output> <recipe> <arguments>`. */
const built = z.strictObject({
  recipe: z.string().regex(/^[a-z0-9-]{1,40}$/),
  arguments: z
    .array(z.string().regex(/^[a-z0-9][a-z0-9.-]{0,40}$/))
    .max(10)
    .default([]),
  /** Whether VMs of the usual size begin from the memory of one that has booted. Only for images with perl and e2fsprogs. */
  warm: z.boolean().default(false),
});
/** A cloud image, qcow2 or raw, that cloud-init sets up at its first boot: fetched once and only used when its digest is right. */
const fetched = z.strictObject({ url: z.url({ protocol: /^https?$/ }), sha512 });
/** The same, on a disk of every host that makes VMs of it. */
const local = z.strictObject({
  path: z.string().refine(isAbsolute, 'must be absolute'),
  sha512: sha512.optional(),
});

const image = z.strictObject({
  name,
  /** Other names of it. One that a later entry claims is that one's. */
  aliases: z.array(name).max(10).default([]),
  title: z.string().min(1).max(100),
  description: z.string().min(1).max(500),
  /** Under which terms, and where to read them. */
  licence: z.string().max(200).optional(),
  /** The smallest disk that holds it. */
  disk_gb: z.int().min(1).max(1024),
  source: z.union([built, fetched, local]),
});

const file = z.strictObject({
  /** Whether the entries that come with Longhaul stay; one of the same name is replaced in any case. */
  keep_built_in: z.boolean().default(true),
  images: z.array(image).max(MAX_IMAGES),
});

export type ImageEntry = z.output<typeof image>;
export type ImageSource = ImageEntry['source'];

/** The images that VMs can be made from. Exactly one of them is, or is also called, `default`. */
export class ImageCatalog {
  constructor(readonly images: readonly ImageEntry[]) {}

  /** By name or alias; throws `image_not_found`. */
  find(wanted: string): ImageEntry {
    const found = this.images.find((each) => each.name === wanted || each.aliases.includes(wanted));
    if (found) return found;
    const known = this.images.map((each) => each.name).join(', ');
    throw new AppError('image_not_found', `There is no image ${wanted.slice(0, 64)}. There are: ${known}.`);
  }
}

/**
 * The images that come with Longhaul, and those of the operator's own file (IMAGE_CATALOG), which is read anew each time: a
 * changed file needs no restart. Throws, naming the file and what is wrong where, for a file that does not fit.
 */
export async function loadCatalog(ownFile?: string): Promise<ImageCatalog> {
  const shipped = await readCatalog(join(imagesFolder(), 'catalog.yaml'));
  const own = ownFile ? await readCatalog(ownFile) : undefined;
  const entries = [...(own && !own.keep_built_in ? [] : shipped.images), ...(own?.images ?? [])];
  // Later entries win: their names and aliases are taken from the earlier ones.
  const taken = new Set<string>();
  const images: ImageEntry[] = [];
  for (const entry of entries.reverse()) {
    if (taken.has(entry.name)) continue;
    const aliases = entry.aliases.filter((alias) => !taken.has(alias));
    for (const each of [entry.name, ...aliases]) taken.add(each);
    images.unshift({ ...entry, aliases });
  }
  if (!taken.has('default')) throw new Error(`${ownFile}: no image has the name or alias "default"`);
  return new ImageCatalog(images);
}

async function readCatalog(path: string): Promise<z.output<typeof file>> {
  if ((await stat(path)).size > MAX_FILE_BYTES)
    throw new Error(`${path} is larger than ${MAX_FILE_BYTES} bytes`);
  const parsed = file.safeParse(parse(await readFile(path, 'utf8'), { maxAliasCount: 0 }));
  if (parsed.success) return parsed.data;
  throw new Error(`${path} is no catalogue of images:\n${z.prettifyError(parsed.error)}`);
}

/** The folder `images` of this source tree, seen from the sources or from `dist`. */
export function imagesFolder(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'images', 'catalog.yaml'))) {
    if (directory === dirname(directory))
      throw new Error('images/catalog.yaml is missing from the installation');
    directory = dirname(directory);
  }
  return join(directory, 'images');
}
