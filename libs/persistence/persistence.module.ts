import { Module } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import type { z } from 'zod';
import { Database, type persistenceConfig } from './database.js';
import { StateChanges } from './state-changes.js';

@Module({
  providers: [
    {
      provide: Database,
      inject: [CONFIG],
      useFactory: (config: z.output<typeof persistenceConfig>) => new Database(config),
    },
    StateChanges,
  ],
  exports: [Database, StateChanges],
})
export class PersistenceModule {}
