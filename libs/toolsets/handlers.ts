import { vmCommandHandler } from './commands/vm-command.handler.js';
import { vmInstallHandler } from './files/vm-install.handler.js';
import { vmListDirectoryHandler } from './inspect/vm-list-directory.handler.js';
import { vmReadFileHandler } from './inspect/vm-read-file.handler.js';
import type { JobHandler } from './handler.js';
import { vmCreateHandler } from './vms/vm-create.handler.js';
import { vmDeleteHandler } from './vms/vm-delete.handler.js';
import { vmMetricsHandler } from './vms/vm-metrics.handler.js';
import { vmPowerHandler } from './vms/vm-power.handler.js';
import { vmReinstallHandler } from './vms/vm-reinstall.handler.js';
import { vmRenameHandler } from './vms/vm-rename.handler.js';
import { vmResizeHandler } from './vms/vm-resize.handler.js';

/** Every kind of job that a worker can run. */
export const handlers: readonly JobHandler[] = [
  vmCommandHandler,
  vmCreateHandler,
  vmDeleteHandler,
  vmInstallHandler,
  vmListDirectoryHandler,
  vmMetricsHandler,
  vmPowerHandler,
  vmReadFileHandler,
  vmReinstallHandler,
  vmRenameHandler,
  vmResizeHandler,
];
