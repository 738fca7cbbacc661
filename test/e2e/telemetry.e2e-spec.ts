import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fingerprintOf } from '../../libs/guest/ssh/target.js';
import { startCollector } from '../support/collector.js';
import { eventually } from '../support/eventually.js';
import { connect } from '../support/mcp.js';
import { namespaceSshdLacks, startNamespaceSshd, type NamespaceSshd } from '../support/namespace-sshd.js';
import { Stack } from './stack.js';

const TRACE = 'a1'.repeat(16);
const CLIENT_SPAN = 'b2'.repeat(8);
const REQUEST = 'request-of-the-test';
/** Of the command, and of what it prints. */
const PRIVATE = 'not-for-operators';

const lacks = namespaceSshdLacks();
const withGuest = lacks ? describe.skip : describe;

withGuest(`a command from the call to the guest${lacks ? `: not tested here without ${lacks}` : ''}`, () => {
  let collector: Awaited<ReturnType<typeof startCollector>>;
  let stack: Stack;
  let sshd: NamespaceSshd;
  let jobId: string;
  let vmId: string;
  const lines: Record<string, unknown>[] = [];

  beforeAll(async () => {
    collector = await startCollector();
    stack = await Stack.start({
      env: {
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        LOG_LEVEL: 'info',
        METRICS_PORT: '0',
        WORKER_HEALTH_PORT: '0',
      },
      output: (line) => lines.push(JSON.parse(line)),
    });
    await stack.startWorker();
    sshd = await startNamespaceSshd();
    await runCommand();
  }, 300_000);
  afterAll(async () => {
    await stack?.stop();
    await sshd?.stop();
    collector?.stop();
  });

  async function runCommand() {
    const key = join(stack.home, 'key');
    writeFileSync(key, sshd.target.privateKey, { mode: 0o600 });
    const pin = fingerprintOf(Buffer.from(sshd.target.hostKey.split(' ')[1]!, 'base64'));
    const { err } = await stack.adopt(
      'm',
      '--ssh',
      `root@127.0.0.1:${sshd.target.port}`,
      '--host-key',
      pin,
      '--key',
      key,
    );
    expect(err).toBe('');
    vmId = (await stack.database.db.vm.findFirstOrThrow()).id;
    const client = await connect(new URL(stack.url), stack.token, 'auto', {
      traceparent: `00-${TRACE}-${CLIENT_SPAN}-01`,
      'x-request-id': REQUEST,
    });
    stack.clients.push(client);
    const { structuredContent } = await client.callRaw('start_vm_command', {
      vm_id: vmId,
      command: `echo ${PRIVATE}`,
    });
    jobId = (structuredContent as { command_id: string }).command_id;
    expect(await stack.ended(jobId)).toMatchObject({ state: 'succeeded' });
    await client.callRaw(PRIVATE).catch(() => undefined);
  }

  const spanNamed = (name: string) =>
    eventually(() => collector.spans.find((span) => span.name === name && span.traceId === TRACE), {
      withinMs: 60_000,
    });

  it('is one trace over both processes, begun by the client', async () => {
    const call = await spanNamed('tools/call start_vm_command');
    const submit = await spanNamed('job submit');
    const attempt = await spanNamed('job vm.command');
    const start = await spanNamed('guest start command');
    expect(call).toMatchObject({ service: 'longhaul-api', parentSpanId: CLIENT_SPAN });
    expect(submit).toMatchObject({ service: 'longhaul-api', parentSpanId: call.spanId });
    expect(attempt).toMatchObject({ service: 'longhaul-worker', parentSpanId: submit.spanId });
    expect(start).toMatchObject({ service: 'longhaul-worker', parentSpanId: attempt.spanId });
    expect(collector.text()).toContain(jobId);
    expect(collector.text()).not.toContain(PRIVATE);
  });

  it('has one request id and trace id in the lines of both processes', async () => {
    // A busy machine may say that a delivery was late; that line knows the job only.
    const about = () => lines.filter(({ jobId: id, name }) => id === jobId && name !== 'job-queue');
    await eventually(() => about().some(({ msg }) => msg === 'attempt ends the job'));
    const said = new Set(about().map(({ name, msg }) => `${name}: ${msg}`));
    expect([...said]).toEqual([
      'mcp: job submitted',
      'job-runner: attempt begins',
      'job-runner: attempt ends the job',
    ]);
    for (const line of about()) expect(line).toMatchObject({ requestId: REQUEST, traceId: TRACE });
    expect(JSON.stringify(lines)).not.toContain(PRIVATE);
  });

  it('is counted where it happened, without an id or a word of the client in any label', async () => {
    const ports = lines.filter(({ msg }) => msg === 'health and metrics').map(({ port }) => port);
    const pages = ports.map(async (port) => (await fetch(`http://127.0.0.1:${port}/metrics`)).text());
    const [api, worker] = (await Promise.all(pages)) as [string, string];
    expect(api).toMatch(/longhaul_mcp_call_duration_seconds_count\{tool="start_vm_command",code="ok"\} 1\n/);
    expect(api).toMatch(/longhaul_mcp_call_duration_seconds_count\{tool="other",code="unknown_tool"\} 1\n/);
    expect(api).toContain('longhaul_queue_waiting{queue="bulk.local"} 0\n');
    expect(api).toMatch(/longhaul_host_heartbeat_age_seconds\{host="local"\} \d/);
    for (const series of [
      'longhaul_jobs_ended_total{kind="vm.command",state="succeeded"} 1',
      'longhaul_job_attempts_total{kind="vm.command",outcome="succeeded"} 1',
      'longhaul_job_run_seconds_count{kind="vm.command"} 1',
      'longhaul_job_queue_wait_seconds_count{kind="vm.command",lane="bulk"} 1',
      `longhaul_job_log_bytes_total{stream="stdout"} ${PRIVATE.length + 1}`,
      'longhaul_worker_jobs_running 0',
    ])
      expect(worker).toContain(`${series}\n`);
    expect(worker).toMatch(/longhaul_guest_operation_seconds_count\{operation="spawn"\} [1-9]/);
    expect(worker).toMatch(/longhaul_housekeeping_success_timestamp_seconds\{task="heartbeat"\} \d/);
    for (const word of [PRIVATE, jobId, vmId, stack.caller.userId]) expect(api + worker).not.toContain(word);
  });
});
