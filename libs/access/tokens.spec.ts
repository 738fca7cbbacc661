import { TOKEN_PATTERN, isToken, newToken } from './tokens.js';

it('has a form and a checksum that scanners can hold it to', () => {
  const token = newToken();
  expect(token).toMatch(TOKEN_PATTERN);
  expect(isToken(token)).toBe(true);
  const changed = token.slice(0, 20) + (token[20] === 'A' ? 'B' : 'A') + token.slice(21);
  expect(isToken(changed)).toBe(false);
  expect(newToken()).not.toBe(token);
});

it('takes tokens without a checksum, as they were made earlier, and nothing else', () => {
  expect(isToken(`lh_${'a-_'.repeat(14)}Z`)).toBe(true);
  for (const text of ['', 'lh_', `lh_${'a'.repeat(42)}`, `lh_${'a'.repeat(48)}`, `xx_${'a'.repeat(43)}`])
    expect(isToken(text)).toBe(false);
});
