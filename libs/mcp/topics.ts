import { Inject, Injectable } from '@nestjs/common';
import type { Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { LogGrowth, type LogStream } from '@longhaul/job-log';
import { isFinal } from '@longhaul/jobs';
import { StateChanges, type Job } from '@longhaul/persistence';
import type { CallRequest, Services } from './call.js';
import { CallPipeline } from './pipeline.js';
import { CATALOG, McpServers, shows } from './server.js';
import { detailedTaskOf } from './tasks.js';
import type { Catalog } from './tool.js';

/** What a client asks to be told about, or is promised to be. */
export interface Filter {
  toolsListChanged?: boolean;
  resourceSubscriptions?: string[];
  taskIds?: string[];
}

/** One thing that a subscription tells about. */
export interface Topic {
  /** Calls `changed` whenever there may be something to tell, until the returned function is called. */
  watch(changed: () => void): () => void;
  /**
   * What is to be told now, or undefined when nothing has changed since the last time. Throws AppError once the thing is not
   * there for the caller.
   */
  tell(caller: Caller): Promise<Told | undefined>;
}

export interface Told {
  method: string;
  params?: object;
  /** Nothing will come after it. */
  last?: boolean;
}

/** Finds what subscriptions tell about, in the name of those who ask. */
@Injectable()
export class Topics {
  private readonly services: Services;

  constructor(
    @Inject(CATALOG) private readonly catalog: Catalog,
    private readonly servers: McpServers,
    private readonly growth: LogGrowth,
    private readonly changes: StateChanges,
    { services }: CallPipeline,
  ) {
    this.services = services;
  }

  /** The part of a filter that can be honoured: what is not the caller's is left out like what does not exist. */
  async honour(filter: Filter, request: CallRequest): Promise<{ honoured: Filter; topics: Topic[] }> {
    const uris = await found(filter.resourceSubscriptions, (uri) => this.resource(uri, request));
    const tasks = await found(filter.taskIds, (id) => this.task(id, request));
    return {
      honoured: {
        ...(filter.toolsListChanged && { toolsListChanged: true }),
        ...(uris.size > 0 && { resourceSubscriptions: [...uris.keys()] }),
        ...(tasks.size > 0 && { taskIds: [...tasks.keys()] }),
      },
      topics: [
        ...(filter.toolsListChanged ? [this.tools(request)] : []),
        ...uris.values(),
        ...tasks.values(),
      ],
    };
  }

  /** tools/list changes with what the token may do. */
  private tools(request: CallRequest): Topic {
    const listed = (caller: Caller) =>
      this.catalog.tools.filter((tool) => shows({ ...request, caller }, tool)).map(({ name }) => name);
    return changing({ method: 'notifications/tools/list_changed' }, String(listed(request.caller)), {
      watch: (changed) => this.changes.on(request.caller.tokenId, changed),
      version: async (caller) => String(listed(caller)),
    });
  }

  private async task(id: string, { caller, selection }: CallRequest): Promise<Topic | undefined> {
    const { jobs } = this.services;
    const made = await jobs.find(id, caller);
    const { byName, ttlMs } = this.servers;
    const tool = byName.get(made.tool ?? '');
    if (!tool || !selection(tool)) return undefined;
    let told: string | undefined;
    return {
      watch: (changed) => this.changes.on(made.id, changed),
      tell: async (now) => {
        const job = await jobs.find(made.id, now);
        if (versionOf(job) === told) return undefined;
        const params = await detailedTaskOf(job, tool, this.services, ttlMs);
        told = versionOf(job);
        return { method: 'notifications/tasks', params, last: isFinal(job.state) };
      },
    };
  }

  private async resource(uri: string, request: CallRequest): Promise<Topic | undefined> {
    const variables = this.catalog.resources.map(({ match }) => match(uri));
    const index = variables.findIndex((values) => values !== undefined);
    const { tool, args } = this.catalog.resources[index]?.definition ?? {};
    if (!tool || !shows(request, tool)) return undefined;
    const parsed = tool.parse({ ...args, ...variables[index] }) as Named;
    const thing = await this.thing(parsed, request.caller);
    const notification = { method: 'notifications/resources/updated', params: { uri } };
    return thing && changing(notification, await thing.version(request.caller), thing);
  }

  /** What a resource shows, by the arguments of its tool. */
  private async thing({ vm_id, job_id, stream }: Named, caller: Caller): Promise<Thing | undefined> {
    const { access, jobs } = this.services;
    if (vm_id !== undefined) {
      const { id } = await access.resolveVm(caller, vm_id);
      return {
        watch: (changed) => this.changes.on(id, changed),
        async version(now) {
          const vm = await access.resolveVm(now, id);
          const { hostname, image, cpus, memoryMb, diskGb, execEnabled, powerState, observed } = vm;
          return JSON.stringify(
            [hostname, image, cpus, memoryMb, diskGb, execEnabled, powerState, observed],
            // How long ago something was seen is no news (the trigger vms_changed leaves it out, too).
            (key, value: unknown) => (key.endsWith('_at') ? undefined : value),
          );
        },
      };
    }
    if (job_id === undefined) return undefined;
    const { id } = await jobs.find(job_id, caller);
    if (stream === undefined) {
      return {
        watch: (changed) => this.changes.on(id, changed),
        version: async (now) => versionOf(await jobs.find(id, now)),
      };
    }
    const ref = { jobId: id, stream };
    return {
      watch: (changed) => this.growth.on(ref, changed),
      version: async (now) => (await jobs.find(id, now)) && String(await this.growth.size(ref)),
    };
  }
}

interface Named {
  vm_id?: string;
  job_id?: string;
  stream?: LogStream;
}

interface Thing extends Pick<Topic, 'watch'> {
  /** Differs when what a reader sees may differ. */
  version(caller: Caller): Promise<string>;
}

/** Tells the same whenever the thing is not what it was. */
function changing(notification: Told, first: string, { watch, version }: Thing): Topic {
  let told = first;
  return {
    watch,
    async tell(caller) {
      const now = await version(caller);
      if (now === told) return undefined;
      told = now;
      return notification;
    },
  };
}

/** Two changes may fall into the same millisecond. */
const versionOf = ({ state, updatedAt, cancelRequestedAt }: Job) =>
  `${state} ${updatedAt.getTime()} ${cancelRequestedAt?.getTime()}`;

/** One after the other, so that one client's filter does not take every connection to the database. */
async function found(
  names: string[] = [],
  find: (name: string) => Promise<Topic | undefined>,
): Promise<Map<string, Topic>> {
  const topics = new Map<string, Topic>();
  for (const name of new Set(names)) {
    const topic = await find(name).catch((error: unknown) => {
      if (!(error instanceof AppError)) throw error;
    });
    if (topic) topics.set(name, topic);
  }
  return topics;
}
