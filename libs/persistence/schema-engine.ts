import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { PrismaPg } from '@prisma/adapter-pg';
import { bindMigrationAwareSqlAdapterFactory, DriverAdapterError } from '@prisma/driver-adapter-utils';
import type { SchemaEngine } from '@prisma/schema-engine-wasm/schema_engine_bg';
import pg from 'pg';

const require = createRequire(import.meta.url);

// TypeScript has this in its library for browsers only.
declare const WebAssembly: {
  instantiate(
    code: Buffer,
    imports: object,
  ): Promise<{ instance: { exports: { __wbindgen_start(): void } } }>;
};

/**
 * Runs `use` with Prisma's schema engine on a database. It is the WebAssembly build from npm, because the binary that
 * Prisma's own commands want is downloaded from a host that closed networks do not let through.
 */
export async function withSchemaEngine<T>(
  databaseUrl: string,
  use: (engine: SchemaEngine) => Promise<T>,
): Promise<T> {
  const module = await loadEngine();
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
  const factory = new PrismaPg(pool);
  factory.connect = () => connect(pool);
  try {
    const engine = await module.SchemaEngine.new(
      { datamodels: undefined },
      () => undefined,
      bindMigrationAwareSqlAdapterFactory(factory),
    );
    return await use(engine);
  } finally {
    await pool.end();
  }
}

/** Prisma's adapter, but with scripts sent whole: its own way cuts them at every semicolon, even inside of functions and comments. */
async function connect(pool: pg.Pool) {
  const adapter = await new PrismaPg(pool).connect();
  adapter.executeScript = async (script) => {
    await pool.query(script).catch((error: unknown) => {
      if (!(error instanceof pg.DatabaseError)) throw error;
      const { code = '', severity = '', message, detail, hint, column } = error;
      throw new DriverAdapterError({ kind: 'postgres', code, severity, message, detail, hint, column });
    });
  };
  return adapter;
}

let loaded: Promise<typeof import('@prisma/schema-engine-wasm/schema_engine_bg')> | undefined;

function loadEngine() {
  loaded ??= (async () => {
    const module = await import('@prisma/schema-engine-wasm/schema_engine_bg');
    // The package's main file imports the .wasm file directly, which Node does not do without a flag.
    const file = join(dirname(require.resolve('@prisma/schema-engine-wasm')), 'schema_engine_bg.wasm');
    // The engine leaves a timer of ten seconds behind, which must not keep the process alive.
    const timers = Object.keys(module).filter((name) => name.startsWith('__wbg_setTimeout'));
    const unref = (callback: () => void, ms: number) => setTimeout(callback, ms).unref();
    const imports = { ...module, ...Object.fromEntries(timers.map((name) => [name, unref])) };
    const { instance } = await WebAssembly.instantiate(await readFile(file), {
      './schema_engine_bg.js': imports,
    });
    (module as unknown as { __wbg_set_wasm(exports: object): void }).__wbg_set_wasm(instance.exports);
    instance.exports.__wbindgen_start();
    return module;
  })();
  return loaded;
}
