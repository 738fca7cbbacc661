/**
 * Ends or stops this process at a named point when LONGHAUL_FAILPOINT is `<point>:<signal>`, such as `dispatched:SIGKILL`:
 * how the end-to-end tests prove what survives a crash at just that point. Costs a comparison otherwise.
 */
export function failpoint(point: string): void {
  const [wanted, signal] = (process.env.LONGHAUL_FAILPOINT ?? '').split(':');
  if (wanted === point) process.kill(process.pid, signal as NodeJS.Signals);
}
