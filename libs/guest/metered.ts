import { codeOf, metrics } from '@longhaul/telemetry';
import type { GuestSession } from './channel.js';

/** The same session; each of its operations is measured, under the name of its method. */
export const metered = (session: GuestSession): GuestSession =>
  new Proxy(session, {
    get(target, name) {
      const method: unknown = Reflect.get(target, name);
      if (typeof method !== 'function' || typeof name !== 'string') return method;
      return async (...args: unknown[]) => {
        const stop = metrics.guestOperations.startTimer({ operation: name });
        try {
          return await method.apply(target, args);
        } catch (error) {
          metrics.guestFailures.inc({ operation: name, code: codeOf(error) });
          throw error;
        } finally {
          stop();
        }
      };
    },
  });
