import { readdirSync, readFileSync } from 'node:fs';

/** Of all processes, one that this says nothing of has ended meanwhile. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** Processes for whose command line and environment `is` holds. */
export function processesWith(is: (text: string) => boolean): { pid: number; command: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => ({
      pid: Number(name),
      command: commandOf(Number(name)),
      environment: environmentOf(name),
    }))
    .filter(({ command, environment }) => is(`${command}\0${environment}`))
    .map(({ pid, command }) => ({ pid, command: command.replaceAll('\0', ' ').slice(0, 200) }));
}

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8');
  } catch {
    return '';
  }
}
