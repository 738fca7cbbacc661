import { Module } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import { JobDelivery } from '@longhaul/jobs';
import { BullDelivery } from './bull-delivery.js';
import type { z } from 'zod';
import { QueueConnection, type jobQueueConfig } from './connection.js';

@Module({
  providers: [
    {
      provide: QueueConnection,
      inject: [CONFIG],
      useFactory: (config: z.output<typeof jobQueueConfig>) => QueueConnection.open(config),
    },
    { provide: JobDelivery, useClass: BullDelivery },
  ],
  exports: [JobDelivery, QueueConnection],
})
export class JobQueueModule {}
