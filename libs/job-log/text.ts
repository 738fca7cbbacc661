import { isUtf8 } from 'node:buffer';

export interface EncodedSlice {
  text: string;
  encoding: 'utf-8' | 'base64';
  /** How many bytes of the slice `text` stands for; the next read begins after them. */
  bytes: number;
}

/** An unfinished UTF-8 character is at most this long. */
const UNFINISHED_MAX = 3;

/**
 * Text for a slice of a stream: utf-8 when the bytes are valid, else base64. An unfinished character at the end is held
 * back while more bytes may follow (`more`), unless nothing else is there: a read always makes progress.
 */
export function encodeSlice(slice: Buffer, more: boolean): EncodedSlice {
  const whole = more ? slice.subarray(0, slice.length - unfinishedTail(slice)) : slice;
  if (isUtf8(whole) && (whole.length > 0 || slice.length === 0)) {
    return { text: whole.toString('utf8'), encoding: 'utf-8', bytes: whole.length };
  }
  return { text: slice.toString('base64'), encoding: 'base64', bytes: slice.length };
}

/** Length of the begun, not yet complete character that ends the bytes; 0 when there is none. */
function unfinishedTail(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(UNFINISHED_MAX, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}
