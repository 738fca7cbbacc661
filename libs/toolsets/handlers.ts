import { vmCommandHandler } from './commands/vm-command.handler.js';
import type { JobHandler } from './handler.js';
import { vmCreateHandler } from './vms/vm-create.handler.js';
import { vmPowerHandler } from './vms/vm-power.handler.js';

/** Every kind of job that a worker can run. */
export const handlers: readonly JobHandler[] = [vmCommandHandler, vmCreateHandler, vmPowerHandler];
