/**
 * What `work` settles to, unless `ms` pass or `signal` is aborted first: then rejects with `timedOut()` or the
 * signal's reason. `work` itself goes on, its outcome ignored.
 */
export function interruptible<T>(
  work: Promise<T>,
  ms: number,
  timedOut: () => Error,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    // AbortSignal.any and .timeout would do it in less, but leak under a signal that lives as long as a worker.
    const onAbort = () => settle(() => reject(signal?.reason));
    const timer = setTimeout(() => settle(() => reject(timedOut())), Math.max(0, ms));
    const settle = (outcome: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      outcome();
    };
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted) onAbort();
    work.then(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    );
  });
}
