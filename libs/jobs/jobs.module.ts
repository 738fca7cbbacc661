import { Module, type DynamicModule, type Type } from '@nestjs/common';
import { AuditModule } from '@longhaul/audit';
import { PersistenceModule } from '@longhaul/persistence';
import { Attempts } from './attempts.js';
import { Jobs } from './jobs.js';
import { Recovery } from './recovery.js';

@Module({})
export class JobsModule {
  /** `queue` is the module that exports a JobDelivery. */
  static with(queue: Type): DynamicModule {
    return {
      module: JobsModule,
      imports: [PersistenceModule, AuditModule, queue],
      providers: [Jobs, Attempts, Recovery],
      exports: [Jobs, Attempts, Recovery],
    };
  }
}
