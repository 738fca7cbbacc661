import { encodeSlice } from './text.js';

describe('encodeSlice', () => {
  const euro = Buffer.from('a€');

  it('answers valid text as utf-8', () => {
    expect(encodeSlice(euro, true)).toEqual({ text: 'a€', encoding: 'utf-8', bytes: 4 });
    expect(encodeSlice(Buffer.alloc(0), true)).toEqual({ text: '', encoding: 'utf-8', bytes: 0 });
    expect(encodeSlice(Buffer.from('a\0b'), false)).toEqual({ text: 'a\0b', encoding: 'utf-8', bytes: 3 });
  });

  it.each([1, 2])('holds back %d bytes of an unfinished character while more may come', (cut) => {
    expect(encodeSlice(euro.subarray(0, 4 - cut), true)).toEqual({ text: 'a', encoding: 'utf-8', bytes: 1 });
  });

  it('gives them as base64 when nothing follows, or when nothing else is there to give', () => {
    expect(encodeSlice(euro.subarray(0, 3), false)).toEqual({ text: 'YeKC', encoding: 'base64', bytes: 3 });
    expect(encodeSlice(euro.subarray(1, 3), true)).toEqual({ text: '4oI=', encoding: 'base64', bytes: 2 });
  });

  it('gives anything else as base64', () => {
    expect(encodeSlice(Buffer.from([0xff, 0xfe, 0x41]), true)).toMatchObject({
      encoding: 'base64',
      bytes: 3,
    });
    expect(encodeSlice(euro.subarray(2), true)).toMatchObject({ encoding: 'base64', bytes: 2 });
  });

  it('loses no byte, however a stream is cut', () => {
    const text = Buffer.from('aß€😀'.repeat(50));
    for (let max = 1; max <= 9; max++) {
      const parts: Buffer[] = [];
      for (let at = 0; at < text.length;) {
        const slice = text.subarray(at, at + max);
        const { text: part, encoding, bytes } = encodeSlice(slice, at + slice.length < text.length);
        expect(bytes).toBeGreaterThan(0);
        if (max >= 4) expect(encoding).toBe('utf-8');
        parts.push(Buffer.from(part, encoding));
        at += bytes;
      }
      expect(Buffer.concat(parts).equals(text)).toBe(true);
    }
  });
});
