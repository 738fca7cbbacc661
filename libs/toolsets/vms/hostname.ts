import { AppError } from '@longhaul/errors';
import { z } from 'zod';

export const hostname = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'expected a DNS label: a-z, 0-9 and inner hyphens, at most 63',
  )
  .describe('Unique in the project');

export const hostnameTaken = (hostname: string) =>
  new AppError('conflict', `The project has a VM ${hostname} already; choose another hostname.`);
