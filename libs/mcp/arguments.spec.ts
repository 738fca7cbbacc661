import { z } from 'zod';
import { parseArguments } from './arguments.js';

const schema = z.strictObject({
  name: z.string().max(5),
  count: z.int().min(1).max(9).default(3),
  tags: z.array(z.string()).optional(),
});
const fault = (args: unknown): string => {
  try {
    return JSON.stringify(parseArguments(schema, args));
  } catch (error) {
    return (error as Error).message;
  }
};

it('fills in defaults', () => {
  expect(parseArguments(schema, { name: 'a' })).toEqual({ name: 'a', count: 3 });
  expect(parseArguments(z.strictObject({}), undefined)).toEqual({});
});

it.each([
  [{}, 'name: missing.'],
  [{ name: 'a', nmae: 1 }, 'Unknown argument nmae; this tool takes name, count, tags.'],
  [{ name: 'a', count: 10 }, 'count: Too big: expected number to be <=9.'],
  [{ name: 1 }, 'name: Invalid input: expected string, received number.'],
  [{ name: 'a\0' }, 'name: must not contain NUL characters.'],
  [{ name: 'a', tags: ['ok', '\udc00'] }, 'tags: must be valid Unicode; it has half of a surrogate pair.'],
  [{ name: 'toolong', count: 0 }, /^name: .*<=5 characters\. count: .*>=1\.$/],
  ['text', /^arguments: .*expected object/],
])('says of %j what is wrong', (args, message) => {
  expect(fault(args)).toMatch(message);
});

it('repeats little of what it was sent', () => {
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, n) => [`${n}${'x'.repeat(10_000)}`, 1]));
  expect(fault({ name: 'a', ...many }).length).toBeLessThan(1_000);
});

it('takes characters that JSON may not be fond of', () => {
  const text = '\u2028💡\n';
  expect(parseArguments(schema, { name: text })).toMatchObject({ name: text });
});
