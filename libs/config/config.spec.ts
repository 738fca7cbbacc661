import { z } from 'zod';
import { ConfigError, envInteger, envList, parseConfig } from './index.js';

const schema = z.object({
  URL: z.string().startsWith('postgres'),
  SIZE: envInteger(1, 10).default(3),
  NAMES: envList.default([]),
});

it('reads what it knows, takes an empty variable as not set, and fills in defaults', () => {
  const env = { URL: 'postgres://x', SIZE: '', NAMES: ' a, b,', OTHER: 'y' };
  expect(parseConfig(schema, env)).toEqual({ URL: 'postgres://x', SIZE: 3, NAMES: ['a', 'b'] });
});

it('names all faults at once', () => {
  const read = () => parseConfig(schema, { SIZE: '11' });
  expect(read).toThrow(ConfigError);
  expect(read).toThrow(/URL: [^]*SIZE: /);
});
