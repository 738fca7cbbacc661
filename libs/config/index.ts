import { Module, type DynamicModule } from '@nestjs/common';
import { z } from 'zod';

/** Thrown at start with every fault of the environment at once, one a line. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

/**
 * Reads the environment by `schema`, an object schema whose keys are variable names. An app composes its schema from the
 * fragments of the libraries that it loads and calls this once; an empty variable counts as not set.
 */
export function parseConfig<S extends z.ZodObject>(
  schema: S,
  env: NodeJS.ProcessEnv = process.env,
): z.output<S> {
  const present = Object.fromEntries(
    Object.keys(schema.shape).flatMap((name) => (env[name] ? [[name, env[name]]] : [])),
  );
  const parsed = schema.safeParse(present);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
  throw new ConfigError(`The environment is not usable:\n${faults.join('\n')}`);
}

/** A whole number from the environment within bounds. */
export const envInteger = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

/** `a,b,c` from the environment; empty parts are dropped. */
export const envList = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);

/** `https://longhaul.example.com:8443`: nothing after host and port. */
export const envOrigin = z
  .url({ protocol: /^https?$/ })
  .refine((text) => URL.canParse(text) && new URL(text).origin === text.replace(/\/$/, ''), {
    error: 'must be an origin: scheme, host and port, nothing after it',
  })
  .transform((text) => new URL(text).origin);

export const envSwitch = z.enum(['true', 'false']).transform((text) => text === 'true');

/** Under this token every module finds the parsed configuration of its app. */
export const CONFIG = Symbol('config');

@Module({})
export class ConfigModule {
  static forRoot(config: object): DynamicModule {
    return {
      module: ConfigModule,
      global: true,
      providers: [{ provide: CONFIG, useValue: config }],
      exports: [CONFIG],
    };
  }
}
