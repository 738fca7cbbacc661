import { jest } from '@jest/globals';
import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { OauthState } from './state.js';

let test: TestDatabase;
beforeAll(async () => (test = await testDatabase()));
afterAll(() => test.drop());

const HOUR = 3_600;
const seconds = () => Math.floor(Date.now() / 1000);

it.each([HOUR, -HOUR])(
  'gives what a replica with a clock wrong by %d s has stored the time that is left of it',
  async (wrong) => {
    const codes = new OauthState(test.db, 'AuthorizationCode', () => undefined);
    const right = Date.now;
    const clock = jest.spyOn(Date, 'now').mockImplementation(() => right() + wrong * 1000);
    await codes.upsert('code', { exp: seconds() + 60 }, 60);
    expect((await codes.find('code'))!.exp! - seconds()).toBeGreaterThan(30);
    clock.mockRestore();
    const left = (await codes.find('code'))!.exp! - seconds();
    expect(left).toBeGreaterThan(30);
    expect(left).toBeLessThanOrEqual(61);
  },
);
