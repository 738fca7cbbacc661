import type { Random } from './random.js';

/** What there is to break: names of processes and servers, numbers of machines. */
export interface Shape {
  apis: string[];
  workers: string[];
  servers: string[];
  agents: string[];
  vms: string[];
}

export interface Fault {
  number: number;
  kind: FaultKind;
  /** What of the shape it hits; of a link `worker-1>redis`. */
  target: string;
  /** Since the begin of the run. */
  atMs: number;
  /** How long it lasts before it is healed; 0 for what is over at once. */
  forMs: number;
}

interface Sort {
  /** Of each round of all kinds, so many are of this one. */
  weight: number;
  /** How long it lasts, at least and at most. */
  seconds: [number, number];
  targets: (shape: Shape) => string[];
  /** How long its target is left alone after it was healed. */
  restSeconds?: number;
}

/** Leases of the run are 6 s long: some faults outlast them, some do not. */
const KINDS = {
  'api killed': { weight: 2, seconds: [0, 5], targets: ({ apis }) => apis },
  'api ended': { weight: 1, seconds: [0, 3], targets: ({ apis }) => apis },
  'api stopped': { weight: 1, seconds: [2, 10], targets: ({ apis }) => apis },
  'worker killed': { weight: 3, seconds: [0, 10], targets: ({ workers }) => workers },
  'worker ended': { weight: 1, seconds: [0, 5], targets: ({ workers }) => workers },
  'worker stopped': { weight: 1, seconds: [1, 4], targets: ({ workers }) => workers },
  'worker stopped for long': { weight: 2, seconds: [12, 18], targets: ({ workers }) => workers },
  'redis killed': { weight: 1, seconds: [0, 8], targets: server('redis') },
  'redis flushed': { weight: 2, seconds: [0, 0], targets: server('redis') },
  'redis stopped': { weight: 1, seconds: [1, 8], targets: server('redis') },
  'postgres restarted': { weight: 1, seconds: [0, 2], targets: server('postgres') },
  'postgres crashed': { weight: 1, seconds: [0, 3], targets: server('postgres') },
  'postgres killed': { weight: 1, seconds: [0, 3], targets: server('postgres') },
  'postgres backend killed': { weight: 1, seconds: [0, 0], targets: server('postgres') },
  'postgres stopped': { weight: 1, seconds: [2, 12], targets: server('postgres') },
  'store away': { weight: 1, seconds: [3, 15], targets: server('swift') },
  'link cut': { weight: 2, seconds: [1, 12], targets: links },
  'link blackholed': { weight: 2, seconds: [2, 18], targets: links },
  'guest agent killed': { weight: 2, seconds: [0, 0], targets: ({ agents }) => agents },
  'guest agent stopped': { weight: 1, seconds: [2, 12], targets: ({ agents }) => agents },
  'guest reset': { weight: 1, seconds: [0, 0], targets: ({ agents }) => agents, restSeconds: 5 },
  'vm reset': { weight: 1, seconds: [0, 0], targets: ({ vms }) => vms, restSeconds: 90 },
  'vm killed': { weight: 1, seconds: [2, 10], targets: ({ vms }) => vms, restSeconds: 90 },
} satisfies Record<string, Sort>;

export type FaultKind = keyof typeof KINDS;

const AT_ONCE = 4;
const GAP_MS = [300, 3_000] as const;

function server(name: string) {
  return ({ servers }: Shape) => servers.filter((server) => server === name);
}

function links({ apis, workers, servers }: Shape): string[] {
  return [...apis, ...workers].flatMap((process) => servers.map((server) => `${process}>${server}`));
}

/** The faults of so many milliseconds: every kind in each round, whatever has nothing to hit left out. */
export function schedule(random: Random, durationMs: number, shape: Shape): Fault[] {
  const faults: Fault[] = [];
  const busyUntil = new Map<string, number>();
  let bag: FaultKind[] = [];
  let atMs = 500;
  while (atMs < durationMs) {
    if (bag.length === 0) bag = random.shuffled(round(shape));
    const active = faults.filter((fault) => fault.atMs + fault.forMs > atMs).length;
    const index = active < AT_ONCE ? bag.findIndex((kind) => freeTargets(kind).length > 0) : -1;
    if (index >= 0) {
      const [kind] = bag.splice(index, 1) as [FaultKind];
      const sort: Sort = KINDS[kind];
      const target = random.pick(freeTargets(kind));
      const forMs = random.int(sort.seconds[0] * 1000, sort.seconds[1] * 1000);
      faults.push({ number: faults.length + 1, kind, target, atMs, forMs });
      busyUntil.set(target, atMs + forMs + 1000 * (sort.restSeconds ?? 2));
    }
    atMs += random.int(...GAP_MS);
  }
  return faults;

  function freeTargets(kind: FaultKind): string[] {
    return KINDS[kind].targets(shape).filter((target) => (busyUntil.get(target) ?? 0) <= atMs);
  }
}

const round = (shape: Shape): FaultKind[] =>
  (Object.keys(KINDS) as FaultKind[]).flatMap((kind) =>
    KINDS[kind].targets(shape).length > 0 ? Array<FaultKind>(KINDS[kind].weight).fill(kind) : [],
  );
