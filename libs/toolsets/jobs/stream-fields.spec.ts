import type { LogSlice } from '@longhaul/job-log';
import { requireOffset, streamFields } from './stream-fields.js';

const slice = (data: Buffer, more: Partial<LogSlice> = {}): LogSlice => ({
  data,
  size: data.length,
  dropped: 0,
  closed: false,
  ...more,
});

it('shows text as text and counts its bytes', () => {
  expect(streamFields('stdout', slice(Buffer.from('grüße'), { size: 100 }), 20)).toEqual({
    stdout: 'grüße',
    stdout_encoding: 'utf-8',
    next_stdout_offset: 27,
    stdout_eof: false,
  });
});

it('shows anything else as base64', () => {
  const data = Buffer.from([0xff, 0x00]);
  expect(streamFields('stderr', slice(data), 0)).toMatchObject({
    stderr: '/wA=',
    stderr_encoding: 'base64',
    next_stderr_offset: 2,
  });
});

it('holds back a character that the slice has cut, also in a log that has ended', () => {
  const cut = Buffer.from('aü').subarray(0, 2);
  expect(streamFields('stdout', slice(cut, { size: 3, closed: true }), 0)).toMatchObject({
    stdout: 'a',
    next_stdout_offset: 1,
    stdout_eof: false,
  });
});

it('ends where the stream ends and nothing can follow', () => {
  const data = Buffer.from('end');
  expect(streamFields('system', slice(data, { closed: true }), 0)).toMatchObject({ system_eof: true });
  expect(streamFields('system', slice(data, { closed: true, size: 4 }), 0)).toMatchObject({
    system_eof: false,
  });
  expect(streamFields('system', slice(data), 0)).toMatchObject({ system_eof: false });
});

it('says what was not kept', () => {
  const fields = streamFields('stdout', slice(Buffer.from('x'), { closed: true, dropped: 9 }), 0);
  expect(fields).toMatchObject({ stdout_truncated_bytes: 9, stdout_eof: true });
});

it('takes offsets up to the end', () => {
  expect(() => requireOffset('offset', 3, slice(Buffer.alloc(0), { size: 3 }))).not.toThrow();
  expect(() => requireOffset('offset', 4, slice(Buffer.alloc(0), { size: 3 }))).toThrow('has 3 bytes now');
});
