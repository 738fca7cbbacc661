import { randomUUID } from 'node:crypto';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { VmSpec } from '../provider.js';
import { asUser, run } from './programs.js';

const AGENT = '/usr/local/lib/longhaul';
const PORT = '/dev/virtio-ports/org.qemu.guest_agent.0';

/** KillMode: what was started through the agent outlives it. After: once the agent answers, the power button is heard, too. */
const UNIT = `[Unit]
Description=Guest agent that Longhaul works through
ConditionPathExists=${PORT}
After=systemd-logind.service
[Service]
ExecStart=${AGENT}/ld.so --library-path ${AGENT} ${AGENT}/qemu-ga --method=virtio-serial --path=${PORT} --statedir=/run
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Restart=always
RestartSec=1
KillMode=process
[Install]
WantedBy=multi-user.target
`;

/**
 * The agent comes with the seed, as the guest has no way to a mirror, and takes the place of the image's own: some
 * distributions forbid theirs to run commands.
 */
const INSTALL = `set -e
seed=$(mktemp -d)
mount -o ro "$(blkid -L cidata || blkid -L CIDATA)" "$seed"
tar -xzf "$seed/agent.tgz" -C /
umount "$seed"
systemctl disable --now qemu-guest-agent 2>/dev/null || true
systemctl daemon-reload
systemctl enable --now longhaul-agent
`;

export interface SeedOptions {
  spec: VmSpec;
  /** Path of the agent's tar. */
  agent: string;
  user: string | undefined;
}

/** The disk from which cloud-init (its source "NoCloud") learns at the first boot who it is and what to do. */
export async function makeSeed(path: string, { spec, agent, user }: SeedOptions): Promise<void> {
  // Beside the disk, where it goes with what else a crash leaves.
  const work = await mkdtemp(`${path}.`);
  try {
    // Another one for each disk: cloud-init does its work once for each.
    const metaData = { 'instance-id': randomUUID(), 'local-hostname': spec.hostname };
    const userData = {
      hostname: spec.hostname,
      ssh_pwauth: false,
      write_files: [{ path: '/etc/systemd/system/longhaul-agent.service', content: UNIT }],
      runcmd: [['sh', '-c', INSTALL]],
    };
    // JSON is YAML.
    await writeFile(join(work, 'meta-data'), JSON.stringify(metaData));
    await writeFile(join(work, 'user-data'), `#cloud-config\n${JSON.stringify(userData)}\n`);
    await copyFile(agent, join(work, 'agent.tgz'));
    await run(['chmod', '-R', 'a+rX', work]);
    const iso = ['xorriso', '-as', 'mkisofs', '-quiet', '-V', 'cidata', '-J', '-r', '-o', path, work];
    await run(asUser(user, iso));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
