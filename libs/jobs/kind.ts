import type { Scope } from '@longhaul/access';
import type { z } from 'zod';

/** What of a VM a job holds for itself while it lives; docs/job-states.md says which slots go beside which. */
export type VmSlot = 'command' | 'files' | 'data' | 'lifecycle';

/** `interactive` has worker slots of its own, so that bulk work cannot make a waiting caller wait. */
export type Lane = 'interactive' | 'bulk';

/** A sort of job: what the submitting and the executing side must agree on. Its code is the handler of the same name. */
export interface JobKind<Payload = unknown, Result = unknown> {
  /** Stable, e.g. `vm.command`. */
  readonly name: string;
  /**
   * Of the shapes of payload and checkpoint; stored on each row. With another shape it is one more, and `payload` and the
   * handler still read the version before (docs/operations.md, Upgrades).
   */
  readonly version: number;
  readonly payload: z.ZodType<Payload>;
  readonly result: z.ZodType<Result>;
  /** What a token needs to read or cancel such a job and its log. */
  readonly scope: Scope;
  readonly slot?: VmSlot;
  /** Of a kind with a slot: refused while anything else holds a slot of the VM, and nothing else gets one while it lives. */
  readonly alone?: true;
  /** It runs commands: none starts while commands are switched off, for everybody or on the VM. It waits until its deadline. */
  readonly exec?: true;
  readonly lane: Lane;
  /** How long it may wait for a worker before it fails. */
  readonly queueSeconds: number;
  /** How long one attempt may run before nobody is expected to come back for it. */
  readonly runSeconds: (payload: Payload) => number;
}

export const defineJobKind = <Payload, Result>(kind: JobKind<Payload, Result>): JobKind<Payload, Result> =>
  kind;
