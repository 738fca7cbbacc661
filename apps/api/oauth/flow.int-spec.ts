import { testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../../test/support/mcp.js';
import { Browser, MemoryProvider, connectByOauth, makePerson } from '../../../test/support/oauth.js';
import type { ApiServer } from '../server.js';

const CALLBACK = 'http://127.0.0.1:9/callback';

let test: TestDatabase;
let api: ApiServer;
let origin: string;

beforeAll(async () => {
  test = await testDatabase();
  api = await startTestApi(test.url);
  origin = `http://127.0.0.1:${api.port}`;
});
afterAll(async () => {
  await api.close();
  await test.drop();
});

it('lets the official client discover, register, be allowed in by a person, call and refresh', async () => {
  const person = await makePerson(test.db);
  const provider = new MemoryProvider(CALLBACK);
  const client = await connectByOauth(mcpUrl(api.port), provider, (asked) =>
    new Browser([origin]).allow(asked, person),
  );
  const answer = await client.callTool({ name: 'whoami', arguments: {} });
  expect(answer.structuredContent).toMatchObject({ email: person.email });
  expect(provider.saved).toMatchObject({
    token_type: 'Bearer',
    expires_in: 3600,
    refresh_token: expect.any(String),
  });
  await client.close();
});
