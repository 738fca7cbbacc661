import { Prisma } from '@longhaul/persistence';

/**
 * Holds for a row of `jobs` that must not begin: it runs commands, and they are switched off, for everybody or on its VM. What
 * may have reached the guest already is not held back: somebody must follow it to its end.
 */
export const EXEC_FORBIDDEN = Prisma.sql`(jobs.exec
  AND (EXISTS (SELECT FROM kill_switches WHERE name = 'exec' AND engaged)
    OR EXISTS (SELECT FROM vms WHERE vms.id = jobs.vm_id AND (exec_suspended OR NOT exec_enabled)))
  AND NOT EXISTS (SELECT FROM job_intents WHERE job_intents.job_id = jobs.id))`;
