import { readdirSync, readFileSync } from 'node:fs';

const othersPids = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number);

/** Words that each end with a NUL. Nothing of a process that has ended meanwhile. */
function wordsOf(pid: number, file: 'cmdline' | 'environ'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

/** Its arguments, the program first. */
export const argumentsOf = (pid: number): string[] => wordsOf(pid, 'cmdline').split('\0');

/** Processes for whose command line and environment `is` holds. */
export function processesWith(is: (text: string) => boolean): { pid: number; command: string }[] {
  return othersPids()
    .map((pid) => ({ pid, command: wordsOf(pid, 'cmdline'), environment: wordsOf(pid, 'environ') }))
    .filter(({ command, environment }) => is(`${command}\0${environment}`))
    .map(({ pid, command }) => ({ pid, command: command.replaceAll('\0', ' ').slice(0, 200) }));
}

/** Of a VM; `program` as it was started by QEMU's or libvirt's provider. */
export function qemuPidsOf(vmId: string, program = 'qemu-system-x86_64'): number[] {
  return othersPids().filter((pid) => {
    const words = argumentsOf(pid);
    return words[0] === program && words.includes(vmId);
  });
}
