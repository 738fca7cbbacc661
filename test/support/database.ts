import { randomBytes } from 'node:crypto';
import { Access, createToken, SCOPES, type Caller, type Scope } from '@longhaul/access';
import { Audit } from '@longhaul/audit';
import { Database, StateChanges, newId, type Prisma, type Vm } from '@longhaul/persistence';
import pg from 'pg';

/** Of all tests: databases are their own. */
export const TEST_SECRETS_KEYS = `test:${Buffer.alloc(32, 'test').toString('base64')}`;

export interface TestDatabase {
  url: string;
  db: Database;
  changes: StateChanges;
  audit: Audit;
  drop(): Promise<void>;
}

async function onServer(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: process.env.TEST_DATABASE_URL });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}

/** A migrated database of the spec's own on the test run's PostgreSQL. */
export async function testDatabase(): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await onServer(`CREATE DATABASE ${name} TEMPLATE longhaul_template`);
  const url = new URL(process.env.TEST_DATABASE_URL!);
  url.pathname = `/${name}`;
  const opened = await openDatabase(url.href);
  return {
    ...opened,
    async drop() {
      await opened.drop();
      await onServer(`DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** A database that is there already; dropping it only leaves it. */
export async function openDatabase(url: string): Promise<TestDatabase> {
  const db = new Database({ DATABASE_URL: url, DATABASE_POOL: 10 });
  const changes = new StateChanges(db);
  await changes.onModuleInit();
  return {
    url,
    db,
    changes,
    audit: new Audit(db),
    async drop() {
      await changes.onApplicationShutdown();
      await db.onApplicationShutdown();
    },
  };
}

/** A user with a project of their own, and a token. */
export async function makeUser(
  db: Database,
  scopes: readonly Scope[] = SCOPES,
): Promise<{ token: string; caller: Caller }> {
  const userId = newId();
  await db.user.create({ data: { id: userId, email: `${userId}@example.test` } });
  const project = await db.project.create({ data: { id: newId(), name: `project-${userId}` } });
  await db.projectMember.create({ data: { projectId: project.id, userId, role: 'owner' } });
  const { token } = await createToken(db, userId, scopes);
  const caller = await new Access(db).authenticate(token);
  return { token, caller: caller! };
}

/** The host of such VMs, as one that workers serve for as long as any test takes. */
export async function makeHost(db: Database): Promise<void> {
  await db.host.create({ data: { name: 'local', beatAt: new Date(Date.now() + 3_600_000) } });
}

/** A row of a VM in the caller's first project; no machine is behind it unless the test makes one. */
export function makeVm(
  db: Database,
  caller: Caller,
  values: Partial<Prisma.VmUncheckedCreateInput> = {},
): Promise<Vm> {
  const id = newId();
  return db.vm.create({
    data: {
      id,
      projectId: caller.projectIds[0]!,
      hostname: `vm-${id.slice(0, 8)}`,
      provider: 'qemu',
      host: 'local',
      image: 'default',
      cpus: 1,
      memoryMb: 1024,
      diskGb: 10,
      execEnabled: true,
      powerState: 'running',
      ...values,
    },
  });
}
