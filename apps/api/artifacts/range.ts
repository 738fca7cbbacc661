import type { ByteRange } from '@longhaul/artifacts';

/**
 * The one range that a Range header asks for, within `size` bytes; undefined when it asks for all, for several ranges, or for
 * what we do not understand: then all is sent, as RFC 9110 allows.
 */
export function rangeOf(header: string | undefined, size: number): ByteRange | 'unsatisfiable' | undefined {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return undefined;
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined;
  const offset = first === '' ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === '' || last === '' ? size : Math.min(size, Number(last) + 1);
  return offset < end ? { offset, length: end - offset } : 'unsatisfiable';
}
