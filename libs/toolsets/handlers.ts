import { vmCommandHandler } from './commands/vm-command.handler.js';
import type { JobHandler } from './handler.js';
import { vmCreateHandler } from './vms/vm-create.handler.js';
import { vmPowerHandler } from './vms/vm-power.handler.js';

/** Every kind of job that a worker can run. */
const HANDLERS: readonly JobHandler[] = [vmCommandHandler, vmCreateHandler, vmPowerHandler];

/** The code of a kind, by the kind's name. */
export const handlerOf: ReadonlyMap<string, JobHandler> = new Map(
  HANDLERS.map((handler) => [handler.kind.name, handler]),
);
