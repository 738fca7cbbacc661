import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { describeDelivery } from './delivery.contract.js';

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test.drop());

describeDelivery('PostgreSQL', async () => ({ DATABASE_URL: test.url }));
