import { ratesConfig } from '@longhaul/access';
import { artifactsConfig } from '@longhaul/artifacts';
import { envInteger, envList } from '@longhaul/config';
import { imagesConfig } from '@longhaul/images';
import { jobQueueConfig } from '@longhaul/job-queue';
import { retentionConfig, submissionConfig } from '@longhaul/jobs';
import { mcpConfig } from '@longhaul/mcp';
import { oauthConfig } from '@longhaul/oauth';
import { persistenceConfig } from '@longhaul/persistence';
import { secretsConfig } from '@longhaul/secrets';
import { telemetryConfig } from '@longhaul/telemetry';
import { z } from 'zod';
import { networkConfig } from './network.js';

/** Everything that the API reads from its environment. */
export const apiConfig = z.object({
  ...telemetryConfig.shape,
  ...persistenceConfig.shape,
  ...jobQueueConfig.shape,
  ...submissionConfig.shape,
  ...retentionConfig.shape,
  ...mcpConfig.shape,
  ...imagesConfig.shape,
  ...secretsConfig.shape,
  ...ratesConfig.shape,
  ...oauthConfig.shape,
  ...artifactsConfig.shape,
  PORT: envInteger(0, 65_535).default(7777).describe('Port of the API; 0 takes a free one'),
  HOST: z.string().default('127.0.0.1').describe('Address that the API listens on'),
  METRICS_PORT: envInteger(0, 65_535)
    .optional()
    .meta({ default: 'not served' })
    .describe(
      'Port of /metrics, /healthz, /readyz and /ping of the API, beside PORT; 0 takes a free one and logs it',
    ),
  SHUTDOWN_DELAY_SECONDS: envInteger(0, 300)
    .default(5)
    .describe(
      'After SIGTERM the API serves on for so long, while /readyz says 503, so that proxies turn away; give it 12 s more before SIGKILL',
    ),
  ...networkConfig.shape,
  ALLOWED_HOSTS: envList
    .default([])
    .describe('Host names, without port, that requests may be addressed to besides those of the loopback'),
  ALLOWED_ORIGINS: envList
    .default([])
    .describe('Web origins (https://console.example.com) whose pages may call besides those of the loopback'),
});

export type ApiConfig = z.output<typeof apiConfig>;
