import { progressOf } from './follow-command.js';

it.each([
  [0, 0, { progress: 0, total: 60, message: '0 s, 0 B of output' }],
  [12, 1_234_567, { progress: 12, total: 60, message: '12 s, 1.2 MB of output' }],
  [59, 1000, { progress: 59, total: 60, message: '59 s, 1.0 kB of output' }],
  [75, 999, { progress: 60, total: 60, message: '75 s, 999 B of output' }],
  [60, 2 ** 40, { progress: 60, total: 60, message: '60 s, 1.1 TB of output' }],
])('after %d s and %d bytes of output a command is so far', (seconds, bytes, expected) => {
  expect(progressOf(seconds, 60, bytes)).toEqual(expected);
});
