import { chaos } from '../chaos/chaos.js';
import { namespaceAgentLacks } from '../support/namespace-agent.js';

const lacks = namespaceAgentLacks();
const onAgents = lacks ? it.skip : it;

onAgents(
  `loses nothing, runs nothing twice and leaves nothing behind under faults of every kind${lacks ? `, not tested here, as that needs ${lacks}` : ''}`,
  async () => {
    const said: string[] = [];
    const { seed, jobs, faults, ...wrong } = await chaos({
      ...{ seed: 1, jobs: 150, minutes: 1, vms: 0 },
      say: (text) => said.push(text),
    });
    if (Object.values(wrong).some(Boolean)) console.error(said.join('\n'));
    expect([seed, jobs]).toEqual([1, 150]);
    expect(faults).toBeGreaterThan(20);
    expect(wrong).toEqual({ lost: 0, run_twice: 0, log_gaps: 0, leftovers: 0, crashes: 0 });
  },
  900_000,
);
