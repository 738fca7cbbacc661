import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Secrets, addKey } from './index.js';

const key = (id: string) => `${id}:${randomBytes(32).toString('base64')}`;
const plain = Buffer.from('a private key');

it('opens what it has sealed, in its context only', () => {
  const secrets = new Secrets({ SECRETS_KEYS: key('a') });
  const sealed = secrets.seal(plain, 'table 1');
  expect(sealed).toMatch(/^v1\.a\.[\w-]+$/);
  expect(secrets.open(sealed, 'table 1')).toEqual(plain);
  expect(() => secrets.open(sealed, 'table 2')).toThrow();
  expect(secrets.seal(plain, 'table 1')).not.toBe(sealed);
  expect(secrets.open(secrets.seal(Buffer.alloc(0), ''), '')).toHaveLength(0);
});

it('refuses what was changed anywhere', () => {
  const secrets = new Secrets({ SECRETS_KEYS: key('a') });
  const [version, id, text] = secrets.seal(plain, 'x').split('.') as [string, string, string];
  const bytes = Buffer.from(text, 'base64url');
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1;
    expect(() => secrets.open(`${version}.${id}.${changed.toString('base64url')}`, 'x')).toThrow();
  }
  for (const broken of ['', 'v1', 'v1.a.', `v2.a.${text}`, `v1.b.${text}`, `v1.a.${text.slice(0, 40)}`])
    expect(() => secrets.open(broken, 'x')).toThrow();
});

it('opens with every key that it has, and rewraps for the first', () => {
  const [old, next] = [key('old'), key('next')];
  const sealed = new Secrets({ SECRETS_KEYS: old }).seal(plain, 'x');
  const both = new Secrets({ SECRETS_KEYS: `${next},${old}` });
  expect(both.open(sealed, 'x')).toEqual(plain);
  const rewrapped = both.rewrap(sealed, 'x')!;
  expect(both.rewrap(rewrapped, 'x')).toBeUndefined();
  const after = new Secrets({ SECRETS_KEYS: next });
  expect(after.open(rewrapped, 'x')).toEqual(plain);
  expect(() => after.open(sealed, 'x')).toThrow('there is no master key old here');
});

describe('a file of keys', () => {
  const directory = mkdtempSync(join(tmpdir(), 'longhaul-secrets-'));
  const file = join(directory, 'secrets.key');
  afterAll(() => rmSync(directory, { recursive: true }));

  it('is made in LONGHAUL_HOME where nothing is said, and stays', () => {
    const LONGHAUL_HOME = join(directory, 'new', 'home');
    const sealed = new Secrets({ LONGHAUL_HOME }).seal(plain, 'x');
    expect(new Secrets({ LONGHAUL_HOME }).open(sealed, 'x')).toEqual(plain);
    expect(readdirSync(LONGHAUL_HOME)).toEqual(['secrets.key']);
    expect(() => new Secrets({ SECRETS_KEY_FILE: join(directory, 'absent') })).toThrow('cannot be read');
  });

  it('is made for its owner only, and read again when another process has rotated', () => {
    addKey(file);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const here = new Secrets({ SECRETS_KEY_FILE: file });
    const sealed = here.seal(plain, 'x');
    const id = addKey(file);
    const there = new Secrets({ SECRETS_KEY_FILE: file });
    const rewrapped = there.rewrap(sealed, 'x')!;
    expect(rewrapped).toContain(id);
    expect(here.open(rewrapped, 'x')).toEqual(plain);
    expect(here.seal(plain, 'x')).toContain(id);
    expect(there.open(here.seal(plain, 'y'), 'y')).toEqual(plain);
    expect(readFileSync(file, 'utf8').trim().split('\n')).toHaveLength(2);
  });

  it('is refused when it is unusable, without being repeated', () => {
    expect(() => new Secrets({ SECRETS_KEY_FILE: join(directory, 'none') })).toThrow('cannot be read');
    for (const text of ['', 'a:b', `${key('a')}\nnonsense`, `${key('a')}\n${key('a')}`]) {
      writeFileSync(file, text);
      expect(() => new Secrets({ SECRETS_KEY_FILE: file })).toThrow(/holds|entry/);
      expect(() => new Secrets({ SECRETS_KEY_FILE: file })).not.toThrow(/nonsense/);
    }
  });
});
