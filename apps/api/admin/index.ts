import type { Route } from '../rest/route.js';
import { auditRoutes } from './audit.js';
import { clientRoutes } from './clients.js';
import { credentialRoutes } from './credentials.js';
import { jobRoutes } from './jobs.js';
import { projectRoutes } from './projects.js';
import { switchRoutes } from './switches.js';
import { userRoutes } from './users.js';
import { vmRoutes } from './vms.js';
import { workerRoutes } from './workers.js';

/** What staff has. */
export const adminRoutes: readonly Route[] = [
  ...auditRoutes,
  ...userRoutes,
  ...projectRoutes,
  ...credentialRoutes,
  ...clientRoutes,
  ...vmRoutes,
  ...jobRoutes,
  ...workerRoutes,
  ...switchRoutes,
];
