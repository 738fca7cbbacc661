import { envInteger, envOrigin, envSwitch } from '@longhaul/config';
import { z } from 'zod';

export const artifactsConfig = z.object({
  ARTIFACTS_STORE: z
    .enum(['disk', 's3'])
    .default('disk')
    .describe(
      'Where uploaded files are kept: in a folder that the API and all workers share, or in a bucket',
    ),
  ARTIFACTS_DIRECTORY: z
    .string()
    .optional()
    .meta({ default: 'artifacts in LONGHAUL_HOME' })
    .describe('That folder'),
  ARTIFACTS_GUEST_URL: envOrigin
    .optional()
    .describe(
      'Origin under which VMs reach the API to download files; not needed where the provider has a gateway, as qemu',
    ),
  ARTIFACTS_PROJECT_MIB: envInteger(1, 1_048_576)
    .default(4096)
    .describe('Mebibytes that the files of one project may take, those announced but not uploaded too'),
  ARTIFACT_RETENTION_DAYS: envInteger(1, 3650)
    .default(7)
    .describe('A file is deleted this long after its upload or its last installation'),
  S3_ENDPOINT: envOrigin
    .optional()
    .meta({ default: 'that of AWS' })
    .describe('Origin of the S3 server; clients that upload must reach it, too'),
  S3_REGION: z.string().default('us-east-1').describe('Region that requests to it are signed for'),
  S3_BUCKET: z.string().optional().describe('Bucket, which must exist; required for ARTIFACTS_STORE=s3'),
  S3_ACCESS_KEY_ID: z
    .string()
    .optional()
    .meta({ default: 'what the AWS SDK finds: files, roles of the machine' })
    .describe('Credentials for it; goes with S3_SECRET_ACCESS_KEY'),
  S3_SECRET_ACCESS_KEY: z.string().optional().describe('Their secret'),
  S3_CONDITIONAL_WRITES: envSwitch
    .default(true)
    .describe(
      'Whether uploads carry If-None-Match, by which the server takes each file once; false for servers that refuse it, as Swift',
    ),
});

export type ArtifactsConfig = z.output<typeof artifactsConfig> & { LONGHAUL_HOME: string };
