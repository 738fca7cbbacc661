export interface Delivery {
  jobId: string;
  number: number;
  queue: string;
  priority: number;
}

/** How the id of a queued job reaches a worker. Delivery may be lost or doubled: the claim decides, recovery redelivers. */
export abstract class JobDelivery {
  /**
   * Of one queue, `priority` 0 comes first, then 1, 2, …; equals come in turn. Fails within 500 ms when the queue is away; the
   * row is the outbox, so a caller need not care.
   */
  abstract deliver(delivery: Delivery): Promise<void>;

  /** Rejects, within a second, when the queue does not answer. */
  abstract ping(): Promise<void>;
}
