import { Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { JobDelivery, type Delivery } from '@longhaul/jobs';
import { createLogger } from '@longhaul/telemetry';
import { Queue } from 'bullmq';
import { DELIVERY_TIMEOUT_MS, QueueConnection } from './connection.js';

/** Puts ids on BullMQ, on either backend. Queues are made when a job needs one: hosts come and go. */
@Injectable()
export class BullDelivery extends JobDelivery implements OnModuleInit, OnApplicationShutdown {
  private readonly log = createLogger('job-queue');
  private readonly producer;
  private readonly queues = new Map<string, Queue>();

  constructor(connection: QueueConnection) {
    super();
    this.producer = connection.forProducers();
  }

  async deliver({ jobId, number, queue: name, priority }: Delivery): Promise<void> {
    if (!this.producer.isUp()) throw new Error('the queue is away');
    const queue = this.queues.get(name) ?? this.makeQueue(name);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('the queue did not answer in time')), DELIVERY_TIMEOUT_MS);
    });
    const added = queue.add(
      'job',
      { jobId },
      { jobId: `${jobId}-${number}`, priority, attempts: 1, removeOnComplete: true, removeOnFail: true },
    );
    try {
      await Promise.race([added, timeout]);
    } catch (error) {
      // A queue whose set-up failed once stays broken; the next delivery makes a new one.
      this.queues.delete(name);
      void added.catch(() => undefined);
      void queue.close().catch(() => undefined);
      this.log.warn({ err: error, jobId }, 'job not delivered, recovery will');
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async ping(): Promise<void> {
    // The first connection of a busy machine takes longer than a delivery waits.
    await this.producer.ping().catch(() => this.producer.ping());
  }

  async onModuleInit() {
    await this.producer.tried;
  }

  async onApplicationShutdown() {
    await Promise.allSettled([...this.queues.values()].map((queue) => queue.close()));
    await this.producer.close();
  }

  private makeQueue(name: string): Queue {
    const queue = new Queue(name, { connection: this.producer.connection });
    queue.on('error', (error) => this.log.warn({ err: error }, 'queue connection failed'));
    this.queues.set(name, queue);
    return queue;
  }
}
