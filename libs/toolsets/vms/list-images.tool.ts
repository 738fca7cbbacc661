import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';

export const listImages = defineTool({
  name: 'list_images',
  title: 'List images',
  description: 'Lists the operating systems that create_vm and reinstall_vm take.',
  toolset: 'vms',
  scope: 'vms:read',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({}),
  output: z.object({
    images: z.array(
      z.object({
        image: z.string(),
        aliases: z.array(z.string()).describe('Other names of it'),
        title: z.string(),
        description: z.string(),
        licence: z.string().optional(),
        min_disk_gb: z.int(),
      }),
    ),
  }),
  async handle({ services }) {
    const { images } = await services.images();
    return {
      images: images.map(({ name, aliases, title, description, licence, disk_gb }) => ({
        image: name,
        aliases,
        title,
        description,
        licence,
        min_disk_gb: disk_gb,
      })),
    };
  },
});
