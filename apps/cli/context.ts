import { Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Access, AccessModule } from '@longhaul/access';
import { ConfigModule, parseConfig } from '@longhaul/config';
import { JobQueueModule, jobQueueConfig } from '@longhaul/job-queue';
import { Jobs, JobsModule } from '@longhaul/jobs';
import { Database, PersistenceModule, persistenceConfig } from '@longhaul/persistence';
import { z } from 'zod';

/** The libraries that the commands work through, on the same database and queue as the API. */
export interface Context {
  db: Database;
  access: Access;
  jobs: Jobs;
  close(): Promise<void>;
}

@Module({})
class CliModule {}

export async function openContext(env: NodeJS.ProcessEnv): Promise<Context> {
  const config = parseConfig(z.object({ ...persistenceConfig.shape, ...jobQueueConfig.shape }), env);
  const imports = [
    ConfigModule.forRoot(config),
    PersistenceModule,
    AccessModule,
    JobsModule.with(JobQueueModule),
  ];
  const app: INestApplicationContext = await NestFactory.createApplicationContext(
    { module: CliModule, imports },
    { logger: false, abortOnError: false },
  );
  return { db: app.get(Database), access: app.get(Access), jobs: app.get(Jobs), close: () => app.close() };
}
