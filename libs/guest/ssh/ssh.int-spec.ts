import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  type NamespaceSshd,
  namespaceSshdLacks,
  startNamespaceSshd,
  startNamespaceSshdForOperator,
} from '../../../test/support/namespace-sshd.js';
import { makeSshKey } from '../../../test/support/ssh-key.js';
import { eventually } from '../../../test/support/eventually.js';
import { describeGuestChannel } from '../channel.contract.js';
import { describeCommands } from '../command.contract.js';

const lacks = namespaceSshdLacks();
if (lacks) it.skip(`SSH: not tested here, as that needs ${lacks}`, () => {});
else {
  describeGuestChannel('SSH as root', startNamespaceSshd);
  // A shell for each of its reads: more than sshd's ten channels a connection show what leaks.
  describeGuestChannel('SSH as somebody who may use sudo', startNamespaceSshdForOperator, 50);
  describeCommands('by SSH', startNamespaceSshd);
  describe('SSH', inDetail);
}

function inDetail(): void {
  let sshd: NamespaceSshd;
  beforeAll(async () => {
    sshd = await startNamespaceSshd();
  }, 120_000);
  afterAll(() => sshd?.stop());

  const sh = async (script: string, channel = sshd.channel) => {
    const program = { path: 'sh', args: ['-c', script] };
    return (await channel.session((guest) => guest.run(program, 30_000))).stdout.toString().trim();
  };

  it('keeps one login for many sessions, and makes another when it was cut', async () => {
    const login = () => sh('echo "$SSH_CONNECTION"');
    const first = await login();
    expect(await login()).toBe(first);
    await sshd.cut();
    const second = await login();
    expect(second).not.toBe(first);
    expect(await login()).toBe(second);
  });

  it('says so when the line is cut in the middle of a program', async () => {
    const run = sshd.channel.session((guest) =>
      guest.run({ path: 'sh', args: ['-c', 'echo >/var/tmp/begun; exec sleep 600'] }, 60_000),
    );
    const ended = expect(run).rejects.toMatchObject({ code: 'guest_unreachable' });
    await eventually(() => existsSync(join(sshd.root, 'var/tmp/begun')));
    await sshd.cut();
    await ended;
  });

  it('starts programs that outlive the connection, with all of their input', async () => {
    const input = Buffer.alloc(500_000, 'long input\n');
    const script = 'mkfifo /tmp/gate; read go </tmp/gate; cat >/tmp/copy; mv /tmp/copy /tmp/done';
    const { pid } = await sshd.channel.session((guest) =>
      guest.spawn({ path: 'sh', args: ['-c', script], stdin: input }),
    );
    await sshd.cut();
    expect(await sh(`until [ -p /tmp/gate ]; do sleep 0.1; done; ps -o sid= -p ${pid}`)).toBe(`${pid}`);
    await sh('echo go >/tmp/gate; until [ -e /tmp/done ]; do sleep 0.1; done');
    const copy = await sshd.channel.session((guest) => guest.readFile('/tmp/done', 0, 1_000_000));
    expect(copy?.data.equals(input)).toBe(true);
  });

  it('tells the wrong key, the wrong password and the wrong user from a machine that is away', async () => {
    const other = makeSshKey().private;
    for (const change of [
      { privateKey: other },
      { user: 'nobody' },
      { privateKey: undefined, password: 'x' },
    ]) {
      const ping = sshd.open({ ...sshd.target, ...change }).session((guest) => guest.ping());
      const refused = { code: 'guest_unreachable', message: expect.stringMatching(/refused the login/) };
      await expect(ping).rejects.toMatchObject(refused);
    }
  });

  it('says what a machine lacks whose user may not become root', async () => {
    await sh('chmod -x /usr/bin/sudo');
    const ping = sshd.open(sshd.operator).session((guest) => guest.ping());
    await expect(ping).rejects.toThrow(/runs no script: .*sudo.*denied/i);
    await sh('chmod +x /usr/bin/sudo');
  });

  it('says that the disk is full', async () => {
    await sh('mkdir /tmp/small; mount -t tmpfs -o size=64k tmpfs /tmp/small');
    const write = sshd.channel.session((guest) => guest.writeFile('/tmp/small/x', Buffer.alloc(200_000)));
    await expect(write).rejects.toMatchObject({ code: 'guest_out_of_space' });
  });
}
