// What `npm start` and `npm test` need before anything of Longhaul can run. Plain JavaScript without dependencies, and cheap
// when there is nothing to do: all of it together takes well under a second.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname ?? '.', '..');
const sbin = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

export class SetupError extends Error {}

export function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(
      `Longhaul needs Node 20.19 or later; this is ${process.versions.node} (${process.execPath}).`,
    );
  }
}

/** `npm ci`, unless everything in the lock file is installed at its version. */
export async function installNpmPackages() {
  const wanted = readPackages('package-lock.json');
  const installed = readPackages('node_modules/.package-lock.json');
  const missing = Object.entries(wanted ?? {}).some(
    ([path, { version, optional }]) => path && !optional && installed?.[path]?.version !== version,
  );
  if (wanted && !missing) return;
  await run('Installing npm packages', 'npm', [
    'ci',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]);
}

function readPackages(path) {
  const file = join(root, path);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined;
}

/** `npm run build`, unless dist/ was made of these very sources. */
export async function build() {
  const stampFile = join(root, 'dist/.sources');
  const stamp = sourcesStamp();
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return;
  await run('Building', 'npm', ['run', '--silent', 'build'], { quiet: true });
  writeFileSync(stampFile, stamp);
}

function sourcesStamp() {
  const hash = createHash('sha256').update(process.version);
  const add = (path) => {
    const { size, mtimeMs } = statSync(path);
    hash.update(`${path} ${size} ${mtimeMs}\n`);
  };
  const walk = (directory) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (entry.isDirectory() && entry.name !== 'generated') walk(path);
      else if (entry.isFile()) add(path);
    }
  };
  for (const directory of ['apps', 'libs']) walk(join(root, directory));
  for (const file of ['prisma/schema.prisma', 'package.json', 'package-lock.json', '.swcrc'])
    add(join(root, file));
  return hash.digest('hex');
}

const managers = ['apt-get', 'dnf', 'zypper', 'pacman', 'apk', 'brew'];

// What the program, or else the file, is for, and its package by the managers above ('' where they have none).
const runTools = [
  [
    'qemu-system-x86_64',
    ['qemu-system-x86', 'qemu-system-x86-core', 'qemu-x86', 'qemu-system-x86', 'qemu-system-x86_64', 'qemu'],
  ],
  ['qemu-img', ['qemu-utils', 'qemu-img', 'qemu-tools', 'qemu-img', 'qemu-img', 'qemu']],
  ['zstd', ['zstd', 'zstd', 'zstd', 'zstd', 'zstd', 'zstd']],
  ['socat', ['socat', 'socat', 'socat', 'socat', 'socat', 'socat']],
  ['xorriso', ['xorriso', 'xorriso', 'xorriso', 'libisoburn', 'xorriso', 'xorriso']],
  ['setpriv', ['util-linux', 'util-linux', 'util-linux', 'util-linux', 'setpriv', '']],
];
const imageTools = [
  ['mmdebstrap', ['mmdebstrap', 'mmdebstrap', 'mmdebstrap', '', 'mmdebstrap', '']],
  ['newuidmap', ['uidmap', 'shadow-utils', 'shadow', 'shadow', 'shadow-uidmap', '']],
  ['fakeroot', ['fakeroot', 'fakeroot', 'fakeroot', 'fakeroot', 'fakeroot', 'fakeroot']],
  ['mke2fs', ['e2fsprogs', 'e2fsprogs', 'e2fsprogs', 'e2fsprogs', 'e2fsprogs', 'e2fsprogs']],
  ['cpio', ['cpio', 'cpio', 'cpio', 'cpio', 'cpio', 'cpio']],
  [
    '/usr/share/keyrings/debian-archive-keyring.gpg',
    ['debian-archive-keyring', 'debian-keyring', '', 'debian-archive-keyring', 'debian-archive-keyring', ''],
  ],
];
const testTools = [
  ['redis-server', ['redis-server', 'redis', 'redis', 'redis', 'redis', 'redis']],
  [
    'qemu-ga',
    ['qemu-guest-agent', 'qemu-guest-agent', 'qemu-guest-agent', 'qemu-guest-agent', 'qemu-guest-agent', ''],
  ],
  ['openssl', ['openssl', 'openssl', 'openssl', 'openssl', 'openssl', 'openssl']],
  ['nft', ['nftables', 'nftables', 'nftables', 'nftables', 'nftables', '']],
  ['virsh', ['libvirt-clients', 'libvirt-client', 'libvirt-client', 'libvirt', 'libvirt-client', '']],
  ['libvirtd', ['libvirt-daemon', 'libvirt-daemon', 'libvirt-daemon', 'libvirt', 'libvirt-daemon', '']],
  [
    'virt-qemu-run',
    [
      'libvirt-daemon-driver-qemu',
      'libvirt-daemon-driver-qemu',
      'libvirt-daemon-qemu',
      'libvirt',
      'libvirt-qemu',
      '',
    ],
  ],
  ['chromium', ['chromium', 'chromium', 'chromium', 'chromium', 'chromium', '']],
  // Of Debian and its kin only: elsewhere what is tested against it is skipped.
  ...(existsSync('/etc/debian_version')
    ? [['/usr/lib/python3/dist-packages/swift', ['python3-swift', '', '', '', '', '']]]
    : []),
];

/** The programs (and files) that Longhaul needs and this machine lacks. */
export const missingSystemPackages = (forTests = false) => missingTools(forTests).map(([name]) => name);

function missingTools(forTests) {
  const images = process.env.LONGHAUL_IMAGES ? [] : imageTools;
  return [...runTools, ...images, ...(forTests ? testTools : [])].filter(([name]) => !isInstalled(name));
}

/**
 * Installs the missing system packages on Debian and its kin, as root or with passwordless sudo; elsewhere throws a
 * SetupError that names the command to type. A given LONGHAUL_IMAGES makes the tools that build images unnecessary.
 */
export async function installSystemPackages({ forTests = false } = {}) {
  const missing = missingTools(forTests);
  if (missing.length === 0) return;

  const index = managers.findIndex((manager) => isInstalled(manager));
  const names = [...new Set(missing.map(([, packages]) => packages[index]).filter(Boolean))];
  const sudo = process.getuid() === 0 ? [] : ['sudo'];
  if (managers[index] === 'apt-get' && (sudo.length === 0 || succeeds('sudo', ['-n', 'true']))) {
    const apt = [...sudo, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq', '-o=Dpkg::Use-Pty=0'];
    await run('Reading the package lists', apt[0], [...apt.slice(1), 'update']);
    const install = ['install', '--yes', '--no-install-recommends', ...names];
    await run(`Installing ${names.join(', ')}`, apt[0], [...apt.slice(1), ...install], { quiet: true });
    const still = missing.filter(([name]) => !isInstalled(name)).map(([name]) => name);
    if (still.length > 0) throw new SetupError(`Installed, yet not found: ${still.join(', ')}`);
    return;
  }

  const without = missing.filter(([, packages]) => !packages[index]).map(([name]) => name);
  const lines = [
    `Longhaul needs programs that are missing here: ${missing.map(([name]) => name).join(', ')}`,
  ];
  if (names.length > 0)
    lines.push('', 'Install them with', `  ${installCommand(managers[index], sudo)} ${names.join(' ')}`);
  if (without.length > 0) {
    lines.push('', `No package is known here for: ${without.join(', ')}.`);
    lines.push(
      'Images can also be built on a Debian machine (images/build.sh) and named by LONGHAUL_IMAGES.',
    );
  }
  throw new SetupError(lines.join('\n'));
}

function installCommand(manager, sudo) {
  const verbs = { pacman: '-S --needed', apk: 'add' };
  const words = [manager, verbs[manager] ?? 'install'];
  return (manager === 'brew' ? words : [...sudo, ...words]).join(' ');
}

function isInstalled(name) {
  if (name.startsWith('/')) return existsSync(name);
  return [...(process.env.PATH ?? '').split(':'), ...sbin].some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function succeeds(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/** Says what it does and runs it in the repository; its output is shown, with `quiet` only when it fails. */
export async function run(label, command, args, { quiet = false, env = process.env } = {}) {
  console.log(`${label} …`);
  const started = Date.now();
  const child = spawn(command, args, {
    cwd: root,
    env,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (data) => (output = (output + data).slice(-20_000)));
  const code = await new Promise((resolve) => {
    child.on('error', (error) => {
      output += error.message;
      resolve(-1);
    });
    child.on('close', resolve);
  });
  if (code !== 0) throw new SetupError(`${output}${label} failed: ${command} ${args.join(' ')}`);
  console.log(`${label}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}
