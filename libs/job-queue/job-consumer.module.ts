import { BullModule, OnWorkerEvent, Processor, WorkerHost } from '@nestjs/bullmq';
import {
  Module,
  type DynamicModule,
  type FactoryProvider,
  type OnModuleDestroy,
  type Type,
} from '@nestjs/common';
import { createLogger } from '@longhaul/telemetry';
import type { Job } from 'bullmq';
import { QueueConnection } from './connection.js';
import { JobQueueModule } from './job-queue.module.js';

/** What a worker does with a delivered id. It must not throw: whatever happened is in the job's row. */
export abstract class JobConsumer {
  abstract consume(jobId: string): Promise<void>;
}

/** The queues that a worker serves, and how many jobs of each it runs at once. */
export type Lanes = { queue: string; concurrency: number }[];

@Module({})
export class JobConsumerModule {
  /** `consumer` is the module that exports a JobConsumer. */
  static forLanes(lanes: Lanes, consumer: Type | DynamicModule): DynamicModule {
    return {
      module: JobConsumerModule,
      imports: [
        consumer,
        BullModule.forRootAsync({
          imports: [JobQueueModule],
          inject: [QueueConnection],
          useFactory: (connection: QueueConnection) => ({ connection: connection.forWorkers() }),
        }),
        // Without a queue to register, this brings what makes workers of processors.
        BullModule.registerQueue(),
      ],
      providers: lanes.map(({ queue, concurrency }) => processorFor(queue, concurrency)),
    };
  }
}

function processorFor(queue: string, concurrency: number): FactoryProvider {
  const log = createLogger('job-queue');

  // A delivery that a dead worker had taken is dropped by the stalled check, never run again by it: recovery decides.
  @Processor(
    { name: queue },
    { concurrency, maxStalledCount: 0, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } },
  )
  class LaneProcessor extends WorkerHost implements OnModuleDestroy {
    constructor(private readonly consumer: JobConsumer) {
      super();
    }

    async process(delivery: Job<{ jobId: string }>): Promise<void> {
      await this.consumer.consume(delivery.data.jobId);
    }

    /** Takes nothing more, before what it runs is asked to end; closed it is once all of that has. */
    onModuleDestroy() {
      void this.worker.close();
    }

    @OnWorkerEvent('error')
    onError(error: Error) {
      log.warn({ err: error, queue }, 'queue connection failed');
    }
  }

  return {
    provide: `LaneProcessor ${queue}`,
    inject: [JobConsumer],
    useFactory: (consumer: JobConsumer) => new LaneProcessor(consumer),
  };
}
