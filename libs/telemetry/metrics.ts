import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** All metrics of a process. docs/metrics.md lists what is declared here, and nothing may be declared elsewhere. */
export const registry = new Registry();

/**
 * Labels are words of ours (kinds, states, codes, names of tools, queues and hosts of the operator): never an id, never what a
 * client has written.
 */
const metric = <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) => ({
  name: `longhaul_${name}`,
  help,
  labelNames,
  registers: [registry],
});

const CALL_SECONDS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const WAIT_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900];
const RUN_SECONDS = [0.1, 0.5, 1, 2.5, 5, 15, 30, 60, 300, 900, 3600, 14_400, 86_400];

/** Of the whole installation, read from the database when the API is scraped. */
export const liveJobs = new Gauge(
  metric('jobs', 'Jobs that have not ended, of the whole installation', ['kind', 'state']),
);
export const queueWaiting = new Gauge(
  metric('queue_waiting', 'Jobs that wait for a worker, of the whole installation', ['queue']),
);
export const hostHeartbeatAge = new Gauge(
  metric('host_heartbeat_age_seconds', 'Since a worker of the host has last beaten', ['host']),
);

export const mcpCalls = new Histogram({
  ...metric(
    'mcp_call_duration_seconds',
    'Calls of tools and methods on tasks; code is ok, asked or that of the error',
    ['tool', 'code'],
  ),
  buckets: CALL_SECONDS,
});

export const jobsEnded = new Counter(
  metric('jobs_ended_total', 'Jobs that this process has ended', ['kind', 'state']),
);
export const jobRun = new Histogram({
  ...metric('job_run_seconds', 'From the first start to the end, of jobs that this process has ended', [
    'kind',
  ]),
  buckets: RUN_SECONDS,
});
export const queueWait = new Histogram({
  ...metric('job_queue_wait_seconds', 'From the submission to the first start', ['kind', 'lane']),
  buckets: WAIT_SECONDS,
});
export const attemptsEnded = new Counter(
  metric(
    'job_attempts_total',
    'Attempts that have ended in this process: the state of the job, or awaiting_input, fenced, handed_over, failed_attempt',
    ['kind', 'outcome'],
  ),
);
export const jobsRunning = new Gauge(metric('worker_jobs_running', 'Attempts under way in this process'));
export const jobsRedelivered = new Counter(
  metric(
    'jobs_redelivered_total',
    'Jobs that recovery has delivered again: lease_expired (their worker is lost), unclaimed',
    ['reason'],
  ),
);
export const logBytes = new Counter(
  metric('job_log_bytes_total', 'Bytes of output stored by this process', ['stream']),
);

export const guestOperations = new Histogram({
  ...metric('guest_operation_seconds', 'Operations in guests, those that failed too', ['operation']),
  buckets: CALL_SECONDS,
});
export const guestFailures = new Counter(
  metric('guest_failures_total', 'Operations in guests that failed', ['operation', 'code']),
);

export const housekeepingFailures = new Counter(
  metric('housekeeping_failures_total', 'Rounds of housekeeping that failed', ['task']),
);
export const housekeepingSuccess = new Gauge(
  metric(
    'housekeeping_success_timestamp_seconds',
    'Unix time of the last round that succeeded; heartbeat renews the leases of jobs',
    ['task'],
  ),
);

export const postgresConnections = new Gauge(
  metric('postgres_connections', "Of the process's pool: busy, idle, and requests that wait for one", [
    'state',
  ]),
);
export const postgresConnectionsMax = new Gauge(
  metric('postgres_connections_max', 'Connections that the pool may open (DATABASE_POOL)'),
);
