import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { CreateBucketCommand, DeleteObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { eventually } from './eventually.js';
import { portToKeep } from './ports.js';

const PYTHON = '/usr/bin/python3';
const PACKAGE = '/usr/lib/python3/dist-packages/swift';

/** Why it cannot be started here; undefined where it can. */
export const SWIFT_LACKS = existsSync(PACKAGE) ? undefined : "there is no Swift of Debian's python3-swift";

/** OpenStack Swift with its S3 interface, of Debian's python3-swift: the servers as they are, one process each. */
export interface Swift {
  endpoint: string;
  region: string;
  bucket: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Its servers die; what they have stored stays. */
  down(): Promise<void>;
  /** They serve again, at the same ports. */
  up(): Promise<void>;
  stop(): Promise<void>;
}

/** How an app keeps its artifacts there. */
export const swiftEnv = (swift: Swift) => ({
  ARTIFACTS_STORE: 's3',
  S3_ENDPOINT: swift.endpoint,
  S3_REGION: swift.region,
  S3_BUCKET: swift.bucket,
  S3_ACCESS_KEY_ID: swift.accessKeyId,
  S3_SECRET_ACCESS_KEY: swift.secretAccessKey,
  S3_CONDITIONAL_WRITES: 'false',
});

const ACCESS_KEY_ID = 'test:tester';
const SECRET_ACCESS_KEY = 'testing';
const REGION = 'us-east-1';
const BUCKET = 'longhaul';

const MAKE_RING = `
import sys
from swift.common.ring import RingBuilder
builder = RingBuilder(1, 1, 0)
builder.add_dev({'zone': 0, 'region': 1, 'ip': '127.0.0.1', 'port': int(sys.argv[2]), 'device': 'disk', 'weight': 1})
builder.rebalance()
builder.get_ring().save(sys.argv[1])`;

const SERVE = `
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: it does not outlive the test
from swift.common import utils
directory, name = sys.argv[1:]
utils.set_swift_dir(directory)
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(os.path.join(directory, name + '.conf'), name + '-server'))`;

/** There must be a cache; that nobody answers there does not matter. */
const PROXY_FILTERS = `
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1

[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = ${REGION}

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = ${SECRET_ACCESS_KEY} .admin
`;

const PIPELINES: Record<string, string> = {
  account: 'account-server',
  container: 'container-server',
  object: 'object-server',
  proxy: 'cache s3api tempauth proxy-server',
};

/** With an empty bucket; ready once it answers. */
export async function startSwift(): Promise<Swift> {
  const directory = mkdtempSync(join(tmpdir(), 'longhaul-swift-'));
  mkdirSync(join(directory, 'devices/disk'), { recursive: true });
  writeFileSync(join(directory, 'swift.conf'), '[swift-hash]\nswift_hash_path_suffix = test\n');
  const children: ChildProcess[] = [];
  const down = async () => {
    for (const child of children.splice(0))
      if (child.exitCode === null && child.kill('SIGKILL')) await once(child, 'exit');
  };
  const stop = async () => {
    await down();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const ports = new Map<string, number>();
    for (const name of Object.keys(PIPELINES)) {
      const port = await portToKeep();
      ports.set(name, port);
      writeFileSync(join(directory, `${name}.conf`), confOf(directory, name, port));
      if (name !== 'proxy')
        execFileSync(PYTHON, ['-c', MAKE_RING, join(directory, `${name}.ring.gz`), String(port)]);
    }
    const endpoint = `http://127.0.0.1:${ports.get('proxy')}`;
    const up = async () => {
      for (const name of ports.keys())
        children.push(
          spawn(PYTHON, ['-c', SERVE, directory, name], { stdio: ['ignore', 'ignore', 'inherit'] }),
        );
      await eventually(() => makeBucket(endpoint), { withinMs: 120_000, everyMs: 200 });
    };
    await up();
    return {
      endpoint,
      region: REGION,
      bucket: BUCKET,
      accessKeyId: ACCESS_KEY_ID,
      secretAccessKey: SECRET_ACCESS_KEY,
      down,
      up,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function confOf(directory: string, name: string, port: number): string {
  return `
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${port}
user = ${userInfo().username}
workers = 0
swift_dir = ${directory}
devices = ${join(directory, 'devices')}
mount_check = false
log_level = CRITICAL
log_address = ${join(directory, 'no-syslog')}

[pipeline:main]
pipeline = ${PIPELINES[name]}

[app:${name}-server]
use = egg:swift#${name}
${name === 'proxy' ? `account_autocreate = true\n${PROXY_FILTERS}` : ''}`;
}

async function makeBucket(endpoint: string): Promise<boolean> {
  const client = new S3Client({
    endpoint,
    region: REGION,
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId: ACCESS_KEY_ID, secretAccessKey: SECRET_ACCESS_KEY },
  });
  try {
    await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch((error: Error) => {
      if (error.name !== 'BucketAlreadyOwnedByYou') throw error;
    });
    // Objects have a server of their own, which may come later.
    const object = { Bucket: BUCKET, Key: 'ready' };
    await client.send(new PutObjectCommand({ ...object, Body: 'ready' }));
    await client.send(new DeleteObjectCommand(object));
  } finally {
    client.destroy();
  }
  return true;
}
