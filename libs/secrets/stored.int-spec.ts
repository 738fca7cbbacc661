import { randomBytes } from 'node:crypto';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { Secrets, StoredSecrets } from './index.js';
import { SEALED_COLUMNS } from './stored.js';

let test: TestDatabase;
let userId: string;

beforeAll(async () => {
  test = await testDatabase();
  ({ userId } = (await makeUser(test.db)).caller);
});
afterAll(() => test.drop());

const key = (id: string) => `${id}:${randomBytes(32).toString('base64')}`;
const [first, second] = [key('first'), key('second')];
const storedWith = (...keys: string[]) =>
  new StoredSecrets(test.db, new Secrets({ SECRETS_KEYS: keys.join() }));

it('makes a shared key once, however many ask at once', async () => {
  const found = await Promise.all(Array.from({ length: 10 }, () => storedWith(first).signingKey('one')));
  expect(new Set(found.map(String)).size).toBe(1);
  const row = await test.db.signingKey.findUniqueOrThrow({ where: { name: 'one' } });
  expect(row.key).toMatch(/^v1\.first\./);
  await test.db.signingKey.create({ data: { name: 'copied', key: row.key } });
  await expect(storedWith(first).signingKey('copied')).rejects.toThrow();
  await test.db.signingKey.delete({ where: { name: 'copied' } });
});

it('delivers a secret once, to its owner', async () => {
  const stored = storedWith(first);
  const { caller } = await makeUser(test.db);
  const id = await stored.keepOnce(test.db, userId, Buffer.from('root password'), 60);
  expect(await stored.deliverOnce(id, caller.userId)).toBeUndefined();
  const delivered = await Promise.all([stored.deliverOnce(id, userId), stored.deliverOnce(id, userId)]);
  expect(delivered.filter(Boolean).map(String)).toEqual(['root password']);
  const late = await stored.keepOnce(test.db, userId, Buffer.from('x'), 0);
  expect(await stored.deliverOnce(late, userId)).toBeUndefined();
  expect(await stored.deliverOnce('no id', userId)).toBeUndefined();
  await test.db.oneTimeSecret.deleteMany();
});

it('rotates: all that is stored opens with the new key alone', async () => {
  const before = storedWith(first);
  const shared = await before.signingKey('one');
  const once = await before.keepOnce(test.db, userId, Buffer.from('once'), 60);
  expect(await storedWith(second, first).rewrapAll()).toBe(2);
  expect(await storedWith(second, first).rewrapAll()).toBe(0);
  const after = storedWith(second);
  expect(await after.signingKey('one')).toEqual(shared);
  expect(String(await after.deliverOnce(once, userId))).toBe('once');
});

it('knows every column that holds sealed text', async () => {
  for (const { table, key, column } of SEALED_COLUMNS) {
    const found = await test.db.$queryRaw`
      SELECT FROM information_schema.columns WHERE table_name = ${table} AND column_name IN (${key}, ${column})`;
    expect(found).toHaveLength(2);
  }
});
