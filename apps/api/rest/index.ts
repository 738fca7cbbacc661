import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { accountRoutes } from '../account/index.js';
import { installDocs } from '../admin/docs.js';
import { adminRoutes } from '../admin/index.js';
import { installRest } from './install.js';
import { openApiOf } from './openapi.js';
import { defineRoute, type RestServices, type Route } from './route.js';

let document: Record<string, unknown> | undefined;

const openApi = defineRoute({
  method: 'GET',
  path: '/admin/openapi.json',
  summary: 'This document',
  needs: 'staff',
  answer: z.record(z.string(), z.unknown()),
  async handle() {
    return (document ??= openApiOf(routes));
  },
});

/** Every route below /admin and /account, but the page to try them at. */
export const routes: readonly Route[] = [openApi, ...adminRoutes, ...accountRoutes];

/** Serves administration and accounts. */
export function installRestRoutes(server: FastifyInstance, services: RestServices): void {
  installRest(server, routes, ['/admin/v1', '/account/v1'], services);
  installDocs(server);
}
