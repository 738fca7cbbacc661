import { accessSync, constants } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';
import { testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../../test/support/mcp.js';
import { MemoryProvider, connectByOauth, makePerson } from '../../../test/support/oauth.js';
import type { ApiServer } from '../server.js';

const CHROMIUM = (process.env.PATH ?? '')
  .split(delimiter)
  .map((directory) => join(directory, 'chromium'))
  .find(isProgram);

const suite = CHROMIUM ? describe : describe.skip;

suite(`in Chromium${CHROMIUM ? '' : ' (skipped: this machine has no chromium)'}`, () => {
  let test: TestDatabase;
  let api: ApiServer;
  let browser: Browser;
  let callback: Server;
  let redirectUrl: string;

  beforeAll(async () => {
    test = await testDatabase();
    api = await startTestApi(test.url);
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--disable-gpu', '--disable-dev-shm-usage'],
    });
    callback = createServer((_request, response) => response.end('<title>Back</title>')).listen(
      0,
      '127.0.0.1',
    );
    await once(callback, 'listening');
    redirectUrl = `http://127.0.0.1:${(callback.address() as AddressInfo).port}/callback`;
  });
  afterAll(async () => {
    await browser?.close();
    callback?.close();
    callback?.closeAllConnections();
    await api.close();
    await test.drop();
  });

  /** Does with a page of a browser of its own what a person does; fails when the browser found anything to complain about. */
  async function person(asked: URL, act: (page: Page) => Promise<void>): Promise<URL> {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(message.text()));
    await page.goto(asked.href);
    await act(page);
    await page.waitForURL(`${redirectUrl}?*`);
    const url = new URL(page.url());
    await context.close();
    expect(complaints.filter((text) => !text.includes('401 (Unauthorized)'))).toEqual([]);
    return url;
  }

  it('a person logs in, leaves something out and allows, and the client works', async () => {
    const { email, password } = await makePerson(test.db);
    const provider = new MemoryProvider(redirectUrl);
    const client = await connectByOauth(mcpUrl(api.port), provider, (asked) =>
      person(asked, async (page) => {
        await page.getByLabel('E-mail address').fill(email);
        await page.getByLabel('Password').fill('not the password');
        await page.getByRole('button', { name: 'Log in' }).click();
        expect(await page.getByRole('alert').textContent()).toContain('is wrong');
        await page.getByLabel('Password').fill(password);
        await page.getByRole('button', { name: 'Log in' }).click();
        await page.getByRole('heading', { name: 'Let A test act for you?' }).waitFor();
        await page.getByRole('checkbox', { name: 'Run any command' }).uncheck();
        await page.getByRole('button', { name: 'Allow' }).click();
      }),
    );
    const { structuredContent } = await client.callTool({ name: 'whoami', arguments: {} });
    expect(structuredContent).toMatchObject({ email, scopes: expect.not.arrayContaining(['vms:exec']) });
    await client.close();
  });

  it('all of it can be done with the keyboard', async () => {
    const { email, password } = await makePerson(test.db);
    const provider = new MemoryProvider(redirectUrl);
    const client = await connectByOauth(mcpUrl(api.port), provider, (asked) =>
      person(asked, async (page) => {
        const { keyboard } = page;
        await keyboard.press('Tab');
        await keyboard.type(email);
        await keyboard.press('Tab');
        await keyboard.type(password);
        await keyboard.press('Enter');
        const allow = page.getByRole('button', { name: 'Allow' });
        await allow.waitFor();
        const isFocused = () => page.locator('button[value=allow]:focus').count();
        for (let tabs = 0; tabs < 50 && (await isFocused()) === 0; tabs++) await keyboard.press('Tab');
        await keyboard.press('Enter');
      }),
    );
    expect((await client.callTool({ name: 'whoami', arguments: {} })).isError).not.toBe(true);
    await client.close();
  });
});

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
