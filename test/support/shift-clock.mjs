// For `node --import`: the clock of this process goes so many seconds wrong, and as many in the other direction after each SIGUSR2.
let shiftMs = Number(process.env.TEST_CLOCK_SECONDS) * 1000;
process.on('SIGUSR2', () => (shiftMs = -shiftMs));

const right = Date.now;
const now = () => right() + shiftMs;
globalThis.Date = new Proxy(Date, {
  construct: (target, args, wanted) => Reflect.construct(target, args.length > 0 ? args : [now()], wanted),
  apply: (target) => new target(now()).toString(),
  get: (target, name) => (name === 'now' ? now : Reflect.get(target, name)),
});
