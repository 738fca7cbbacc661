/** How the id of a queued job reaches a worker. Delivery may be lost or doubled: the claim decides, recovery redelivers. */
export abstract class JobDelivery {
  /** Fails within 500 ms when the queue is away; the row is the outbox, so a caller need not care. */
  abstract deliver(delivery: { jobId: string; number: number; queue: string }): Promise<void>;

  /** Rejects, within a second, when the queue does not answer. */
  abstract ping(): Promise<void>;
}
