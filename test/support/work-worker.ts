// A worker as a process of its own, to be killed: it does jobs of the kind test.work at once.
import 'reflect-metadata';
import { parseConfig } from '@longhaul/config';
import { defineHandler } from '@longhaul/toolsets/handler';
import { workerConfig } from '../../apps/worker/config.js';
import { startWorker } from '../../apps/worker/start.js';
import { work } from './work.js';

const handler = defineHandler({ kind: work, run: async () => ({ state: 'succeeded', result: {} }) });
await startWorker(parseConfig(workerConfig), [handler]);
