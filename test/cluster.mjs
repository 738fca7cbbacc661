// npm run cluster [-- options]: what production runs, as plain processes on the loopback, until Ctrl-C. The last line is JSON.
//   --agents 2     VMs that are a guest agent in a namespace each (default 1)
//   --vms 2        VMs of QEMU, at most 2 (default 0)
//   --no-swift     files are kept in a folder
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { Cluster } from './support/cluster.ts';

const { values: options } = parseArgs({
  options: {
    agents: { type: 'string', default: '1' },
    vms: { type: 'string', default: '0' },
    'no-swift': { type: 'boolean', default: false },
  },
});
const [agents, vms] = [Number(options.agents), Number(options.vms)];
if (!(agents >= 0 && agents <= 50 && vms >= 0 && vms <= 2)) {
  console.error('--agents is a number from 0 to 50, --vms is 0, 1 or 2');
  process.exit(2);
}

const controller = new AbortController();
const interrupt = controller.signal;
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => controller.abort());

const cluster = await Cluster.start(options['no-swift'] ? { swift: false } : {});
try {
  const { stack, members, servers } = cluster;
  const machines = [];
  for (let n = 0; n < agents; n++) machines.push((await cluster.addAgentVm()).vm);
  for (let n = 0; n < vms; n++) machines.push(await stack.createVm());
  const processes = Object.fromEntries(
    [...members].map(([name, { child, env }]) => [
      name,
      { pid: child.pid, port: Number(env.PORT) || undefined },
    ]),
  );
  const urls = Object.fromEntries([...servers].map(([name, { url }]) => [name, url]));
  const ids = machines.map(({ id }) => id);
  console.log(JSON.stringify({ url: stack.url, token: stack.token, vms: ids, processes, servers: urls }));
  if (!interrupt.aborted) await once(interrupt, 'abort');
} finally {
  await cluster.stop();
}
process.exit(0);
