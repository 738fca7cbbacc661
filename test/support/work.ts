import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** A kind that nothing else is needed for; its handler is the spec's. */
export const work = defineJobKind({
  name: 'test.work',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({}),
  scope: 'vms:exec',
  lane: 'bulk',
  queueSeconds: 3_600,
  runSeconds: () => 3_600,
});
