import { Module, type DynamicModule, type Type } from '@nestjs/common';
import { AuditModule } from '@longhaul/audit';
import { PersistenceModule } from '@longhaul/persistence';
import { Attempts } from './attempts.js';
import { Jobs } from './jobs.js';
import { Recovery } from './recovery.js';
import { Retention } from './retention.js';

@Module({})
export class JobsModule {
  /** `queue` is the module that exports a JobDelivery. Submitting processes need no more. */
  static with(queue: Type): DynamicModule {
    return {
      module: JobsModule,
      imports: [PersistenceModule, AuditModule, queue],
      providers: [Jobs],
      exports: [Jobs],
    };
  }

  /** For workers: what runs jobs, too. */
  static forWorkers(queue: Type): DynamicModule {
    const { imports } = JobsModule.with(queue);
    const providers = [Jobs, Attempts, Recovery, Retention];
    return { module: JobsModule, imports, providers, exports: providers };
  }
}
