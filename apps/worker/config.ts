import { hostname } from 'node:os';
import { artifactsConfig } from '@longhaul/artifacts';
import { auditConfig } from '@longhaul/audit';
import { envInteger, envList, envOrigin } from '@longhaul/config';
import { imagesConfig } from '@longhaul/images';
import { jobLogConfig } from '@longhaul/job-log';
import { jobQueueConfig } from '@longhaul/job-queue';
import { jobsConfig, retentionConfig } from '@longhaul/jobs';
import { persistenceConfig } from '@longhaul/persistence';
import { secretsConfig } from '@longhaul/secrets';
import { telemetryConfig } from '@longhaul/telemetry';
import { parseAddressRange, parseLibvirtNetwork, parseVmNetwork } from '@longhaul/vm-providers';
import { z } from 'zod';

/** What `parse` makes of a text; its error becomes a fault of the setting. */
const readBy =
  <T>(parse: (text: string) => T) =>
  (text: string, context: z.RefinementCtx): T => {
    try {
      return parse(text);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message });
      return z.NEVER;
    }
  };

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
  ...imagesConfig.shape,
  LONGHAUL_HOME: z.string().describe('Folder of VMs and images on this host'),
  LONGHAUL_IMAGES: z.string().optional().describe('Folder of guest images; default: images in LONGHAUL_HOME'),
  WORKER_NAME: z
    .string()
    .max(100)
    .default(() => `${hostname()}-${process.pid}`)
    .meta({ description: 'Shown on attempts; unique among workers', default: 'host name and process id' }),
  WORKER_HOSTS: envList
    .pipe(z.array(z.string().regex(HOST_NAME)).min(1))
    .transform((hosts) => (hosts.join() === 'none' ? [] : hosts))
    .default(['local'])
    .describe('Hosts whose VMs this worker reaches, comma-separated; none: it serves the shared queues only'),
  WORKER_BULK_JOBS: envInteger(1, 2000).default(200).describe('Bulk jobs run at once, of each host'),
  WORKER_INTERACTIVE_JOBS: envInteger(1, 2000)
    .default(50)
    .describe('Jobs that a caller waits for run at once, of each host'),
  WORKER_HEALTH_PORT: envInteger(0, 65_535)
    .optional()
    .meta({ default: 'not served' })
    .describe('Port of /healthz, /readyz, /ping and /metrics of the worker; 0 takes a free one and logs it'),
  DRAIN_SECONDS: envInteger(0, 3600)
    .default(15)
    .describe(
      'After SIGTERM a worker lets jobs end for so long, then hands them over; give it 13 s more before SIGKILL',
    ),
  VM_ACCELERATOR: z.enum(['auto', 'kvm', 'tcg']).default('auto').describe('How QEMU runs guests'),
  LONGHAUL_GUEST_GATEWAY: envOrigin
    .optional()
    .describe(
      'The one server that guests of QEMU reach, as http://10.0.2.100: the API, so that they fetch files from it; `longhaul up` sets it',
    ),
  VM_USER: z.string().optional().describe('System user that QEMU runs as; only as root'),
  VM_NETWORK: z
    .string()
    .default('user')
    .transform(readBy(parseVmNetwork))
    .describe(
      'user: each VM in a closed network of its own; bridge:<name>: on that bridge (docs/vm-providers.md)',
    ),
  VM_ADDRESS_RANGE: z
    .string()
    .transform(readBy(parseAddressRange))
    .optional()
    .describe('Addresses of this host for VMs on the bridge, such as 10.20.0.10-10.20.0.99/24'),
  VM_GATEWAY: z.ipv4().optional().describe("Router of that range's network"),
  LIBVIRT_URI: z
    .string()
    .optional()
    .describe('Turns the provider libvirt on: qemu:///system or qemu:///session of this host'),
  LIBVIRT_NETWORK: z
    .string()
    .default('user')
    .transform(readBy(parseLibvirtNetwork))
    .describe('Of VMs made through libvirt: user, network:<name> or bridge:<name>'),
});

export type WorkerConfig = z.output<typeof workerConfig>;
