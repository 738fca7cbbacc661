import { z } from 'zod';

/** What all that read the catalogue of images read from their environment: the API to show it, workers to make VMs. */
export const imagesConfig = z.object({
  IMAGE_CATALOG: z
    .string()
    .optional()
    .describe('File with images of your own, read anew each time; docs/images.md'),
});
