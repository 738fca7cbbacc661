import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { ConfigError, envList } from '@longhaul/config';
import { z } from 'zod';

const network = z
  .string()
  .refine(isNetwork, { error: 'must be an address or a network, as 10.0.0.0/8 or ::1' });

export const networkConfig = z.object({
  TRUSTED_PROXIES: envList
    .pipe(z.array(network))
    .default([])
    .describe('Addresses and networks (10.0.0.0/8) of proxies whose X-Forwarded-For and -Proto are believed'),
  TLS_CERT_FILE: z
    .string()
    .optional()
    .describe('Certificate chain in PEM with which the API serves HTTPS itself; goes with TLS_KEY_FILE'),
  TLS_KEY_FILE: z.string().optional().describe('Its private key in PEM'),
});

/** What Fastify is told about who it talks to. Errors: ConfigError for certificate files that are not both there. */
export function networkOf(config: z.output<typeof networkConfig>) {
  const { TRUSTED_PROXIES, TLS_CERT_FILE, TLS_KEY_FILE } = config;
  if ((TLS_CERT_FILE === undefined) !== (TLS_KEY_FILE === undefined))
    throw new ConfigError('TLS_CERT_FILE and TLS_KEY_FILE go together: set both or none.');
  return {
    // A list that is empty would mean everybody.
    trustProxy: TRUSTED_PROXIES.length > 0 ? TRUSTED_PROXIES : false,
    https:
      TLS_CERT_FILE === undefined
        ? null
        : { cert: read('TLS_CERT_FILE', TLS_CERT_FILE), key: read('TLS_KEY_FILE', TLS_KEY_FILE!) },
  };
}

function read(name: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new ConfigError(`${name} cannot be read: ${(error as Error).message}`);
  }
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/');
  const version = isIP(address);
  if (version === 0 || more.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}
