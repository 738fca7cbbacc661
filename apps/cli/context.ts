import { userInfo } from 'node:os';
import { Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Access, AccessModule } from '@longhaul/access';
import { Audit, AuditModule } from '@longhaul/audit';
import { ConfigModule, parseConfig } from '@longhaul/config';
import { JobQueueModule, jobQueueConfig } from '@longhaul/job-queue';
import { Jobs, JobsModule } from '@longhaul/jobs';
import { Database, PersistenceModule, persistenceConfig, type Transaction } from '@longhaul/persistence';
import { z } from 'zod';

/** The libraries that the commands work through, on the same database and queue as the API. */
export interface Context {
  db: Database;
  access: Access;
  jobs: Jobs;
  /** Changes something in the operator's name: it is done, and in the audit, or neither. */
  change<T>(command: string, args: object, act: (tx: Transaction) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** How switches and the audit name who uses this command line. */
export const OPERATOR = `${userInfo().username} (longhaul)`;

@Module({})
class CliModule {}

export async function openContext(env: NodeJS.ProcessEnv): Promise<Context> {
  // Nobody else waits while an operator looks through years of audit.
  const patient = { DATABASE_TIMEOUT_SECONDS: '3600', ...env };
  const config = parseConfig(z.object({ ...persistenceConfig.shape, ...jobQueueConfig.shape }), patient);
  const imports = [
    ConfigModule.forRoot(config),
    PersistenceModule,
    AuditModule,
    AccessModule,
    JobsModule.with(JobQueueModule),
  ];
  const app: INestApplicationContext = await NestFactory.createApplicationContext(
    { module: CliModule, imports },
    { logger: false, abortOnError: false },
  );
  const [db, audit] = [app.get(Database), app.get(Audit)];
  return {
    db,
    access: app.get(Access),
    jobs: app.get(Jobs),
    change: (command, args, act) =>
      db.$transaction(async (tx) => {
        const done = await act(tx);
        const tool = `cli ${command}`;
        await audit.write(tx, { event: 'call', tool, arguments: args, result: 'ok', userAgent: OPERATOR });
        return done;
      }),
    close: () => app.close(),
  };
}
