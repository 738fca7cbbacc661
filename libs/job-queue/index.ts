export { JobConsumer, JobConsumerModule, type Lanes } from './job-consumer.module.js';
export { JobQueueModule } from './job-queue.module.js';
export { QueueConnection, jobQueueConfig } from './connection.js';
export { BullDelivery } from './bull-delivery.js';
