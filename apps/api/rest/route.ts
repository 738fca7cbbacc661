import type { Access, Caller, Rates, Scope } from '@longhaul/access';
import type { Audit } from '@longhaul/audit';
import type { JobLog } from '@longhaul/job-log';
import type { Actor, Jobs } from '@longhaul/jobs';
import type { Database, Transaction } from '@longhaul/persistence';
import type { z } from 'zod';

/** What handlers may use beside their transaction. */
export interface RestServices {
  access: Access;
  audit: Audit;
  db: Database;
  jobs: Jobs;
  jobLog: JobLog;
  rates: Rates;
}

/** What the audit is to say about a request beside its arguments. */
export interface Subject {
  projectId?: string | null;
  vmId?: string | null;
  jobId?: string | null;
}

/** One request as its handler sees it: every gate has been passed, every part of the input has been checked. */
export interface RestCall<Params = unknown, Query = unknown, Body = unknown> {
  params: Params;
  query: Query;
  body: Body;
  caller: Caller;
  /** In whose name it acts. */
  actor: Actor;
  /** On a route that changes something: the transaction in which its audit event is written, too. */
  db: Transaction;
  services: RestServices;
  about(subject: Subject): void;
  /** What must not begin before the change is in force; the answer waits for it. */
  afterwards(act: () => Promise<unknown>): void;
}

/** A body that is sent while it is being made. */
export interface Download {
  contentType: string;
  filename: string;
  chunks: AsyncIterable<string>;
}

type Input = z.ZodType<Record<string, unknown>>;

/** One route. What is checked, answered, documented and audited all comes from here. */
export interface Route<
  Params extends Input = Input,
  Query extends Input = Input,
  Body extends Input = Input,
  Answer extends z.ZodType = z.ZodType,
> {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** As OpenAPI writes it: `/admin/v1/users/{id}`. */
  path: `/${string}`;
  summary: string;
  description?: string;
  /** Who may call: staff, or any user by a credential of that scope. */
  needs: 'staff' | Scope;
  /** Strict objects: an unknown key is refused. Without one, the route takes none. */
  params?: Params;
  query?: Query;
  body?: Body;
  /** Of the JSON that it answers, which has no more than this. Without one it answers a Download. */
  answer?: Answer;
  /** Content types of its Download. */
  downloads?: readonly string[];
  /** Default 200. */
  status?: 201;
  /** It only takes back what its caller has given away: a flagged account may do that, too. */
  takesBack?: true;
  /** `own`: the handler has transactions of its own, as what it calls writes its audit there. */
  transaction?: 'own';
  handle(
    call: RestCall<z.output<Params>, z.output<Query>, z.output<Body>>,
  ): Promise<[Answer] extends [never] ? Download : z.input<Answer>>;
}

/** Checks a declaration and forgets its types, so that routes fit into one list. */
export function defineRoute<
  Params extends Input = z.ZodObject<Record<never, never>>,
  Query extends Input = z.ZodObject<Record<never, never>>,
  Body extends Input = z.ZodObject<Record<never, never>>,
  Answer extends z.ZodType = never,
>(route: Route<Params, Query, Body, Answer>): Route {
  return route as unknown as Route;
}

export const isChange = ({ method }: Route) => method !== 'GET';
