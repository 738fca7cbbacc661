import { hostname } from 'node:os';
import { artifactsConfig } from '@longhaul/artifacts';
import { auditConfig } from '@longhaul/audit';
import { envInteger, envList, envOrigin } from '@longhaul/config';
import { jobLogConfig } from '@longhaul/job-log';
import { jobQueueConfig } from '@longhaul/job-queue';
import { jobsConfig, retentionConfig } from '@longhaul/jobs';
import { persistenceConfig } from '@longhaul/persistence';
import { secretsConfig } from '@longhaul/secrets';
import { telemetryConfig } from '@longhaul/telemetry';
import { z } from 'zod';

const HOST_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

export const workerConfig = z.object({
  ...persistenceConfig.shape,
  ...jobQueueConfig.shape,
  ...jobsConfig.shape,
  ...retentionConfig.shape,
  ...auditConfig.shape,
  ...jobLogConfig.shape,
  ...telemetryConfig.shape,
  ...secretsConfig.shape,
  ...artifactsConfig.shape,
  LONGHAUL_HOME: z.string().describe('Folder of VMs and images on this host'),
  LONGHAUL_IMAGES: z.string().optional().describe('Folder of guest images; default: images in LONGHAUL_HOME'),
  WORKER_NAME: z
    .string()
    .max(100)
    .default(() => `${hostname()}-${process.pid}`)
    .meta({ description: 'Shown on attempts; unique among workers', default: 'host name and process id' }),
  WORKER_HOSTS: envList
    .pipe(z.array(z.string().regex(HOST_NAME)).min(1))
    .default(['local'])
    .describe('Hosts whose VMs this worker reaches, comma-separated'),
  WORKER_BULK_JOBS: envInteger(1, 2000).default(200).describe('Bulk jobs run at once, of each host'),
  WORKER_INTERACTIVE_JOBS: envInteger(1, 2000)
    .default(50)
    .describe('Jobs that a caller waits for run at once, of each host'),
  VM_ACCELERATOR: z.enum(['auto', 'kvm', 'tcg']).default('auto').describe('How QEMU runs guests'),
  LONGHAUL_GUEST_GATEWAY: envOrigin
    .optional()
    .describe(
      'The one server that guests of QEMU reach, as http://10.0.2.100: the API, so that they fetch files from it; `longhaul up` sets it',
    ),
  VM_USER: z.string().optional().describe('System user that QEMU runs as; only as root'),
});

export type WorkerConfig = z.output<typeof workerConfig>;
