import { z } from 'zod';
import { found, id, inPath, page, pageOf, paged, shown, text, time, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const vm = z.object({
  id: z.string(),
  project_id: z.string(),
  hostname: z.string(),
  provider: z.string(),
  host: z.string(),
  image: z.string(),
  cpus: z.int(),
  memory_mb: z.int(),
  disk_gb: z.int(),
  command_slots: z.int(),
  power_state: z.string(),
  observed_at: time.nullable(),
  exec_enabled: z.boolean().describe('Whether its owner lets commands run in it'),
  exec_suspended: z.boolean().describe('By staff: no command may run in it, whatever its owner says'),
  created_at: time,
});

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/vms',
  summary: 'List VMs, newest first',
  needs: 'staff',
  query: z.strictObject({
    ...page,
    project_id: id.optional(),
    host: text(253).optional(),
    hostname: text(253).optional(),
  }),
  answer: pageOf(vm),
  async handle({ db, query }) {
    const { project_id: projectId, host, hostname } = query;
    const where = { projectId, host, hostname };
    const rows = await db.vm.findMany(paged(where, query));
    return toPage(rows, query, shown);
  },
});

const show = defineRoute({
  method: 'GET',
  path: '/admin/v1/vms/{id}',
  summary: 'Show a VM',
  needs: 'staff',
  params: inPath,
  answer: vm,
  async handle({ db, params, about }) {
    const row = found(await db.vm.findUnique({ where: params }));
    about({ vmId: row.id, projectId: row.projectId });
    return shown(row);
  },
});

const change = defineRoute({
  method: 'PATCH',
  path: '/admin/v1/vms/{id}',
  summary: 'Suspend or restore commands in a VM',
  description:
    'In force on the next call; what is queued waits. A command that runs already is not stopped: cancel its job.',
  needs: 'staff',
  params: inPath,
  body: z.strictObject({ exec_suspended: z.boolean() }),
  answer: vm,
  async handle({ db, params, body, about, services, afterwards }) {
    const { id, projectId } = found(await db.vm.findUnique({ where: params }));
    about({ vmId: id, projectId });
    if (!body.exec_suspended) afterwards(() => services.jobs.redeliverCommands());
    return shown(await db.vm.update({ where: params, data: { execSuspended: body.exec_suspended } }));
  },
});

export const vmRoutes = [list, show, change];
