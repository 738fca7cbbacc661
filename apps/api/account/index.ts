import type { Route } from '../rest/route.js';
import { auditRoutes } from './audit.js';
import { grantRoutes } from './grants.js';
import { projectRoutes } from './projects.js';
import { tokenRoutes } from './tokens.js';

/** What users have for themselves. */
export const accountRoutes: readonly Route[] = [
  ...projectRoutes,
  ...tokenRoutes,
  ...grantRoutes,
  ...auditRoutes,
];
