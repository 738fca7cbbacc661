import type { Call } from '../e2e/stack.js';
import { eventually } from './eventually.js';

/** As a client that knows its calls to be repeatable: a connection that breaks or a server that is away is tried again. */
export function patient(call: Call): Call {
  return (name, args) =>
    eventually(
      async () => {
        const answer = await call(name, args);
        if (answer.isError && answer.retryable) throw new Error(JSON.stringify(answer));
        return answer;
      },
      { withinMs: 60_000, everyMs: 200 },
    );
}
