import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';
import { testApi } from '../../../test/support/mcp.js';
import { makeStaff, rest } from '../../../test/support/rest.js';
import { makeTenant } from '../../../test/support/rest-world.js';

const { test, api } = testApi();

const FILES = ['', '/swagger-ui.css', '/swagger-ui-bundle.js', '/page.js'];

it.each(FILES)(
  '/admin/docs%s is there for everybody, under a policy that lets nothing else in',
  async (file) => {
    const { status, headers, text } = await rest(api.port, undefined, 'GET', `/admin/docs${file}`);
    expect([status, text.length > 100]).toEqual([200, true]);
    expect(headers.get('content-security-policy')).toMatch(
      /^default-src 'none'; script-src 'self'; style-src 'self';/,
    );
    expect(headers.get('content-security-policy')).not.toContain('unsafe');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
  },
);

it('nothing else of the package is served', async () => {
  for (const file of ['index.html', 'package.json', '../docs.ts', '%2e%2e/docs.ts', 'swagger-ui.js'])
    expect((await rest(api.port, undefined, 'GET', `/admin/docs/${file}`)).status).toBe(404);
});

const CHROMIUM = (process.env.PATH ?? '')
  .split(delimiter)
  .map((directory) => join(directory, 'chromium'))
  .find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

const suite = CHROMIUM ? describe : describe.skip;

suite(`in Chromium${CHROMIUM ? '' : ' (skipped: this machine has no chromium)'}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--disable-gpu', '--disable-dev-shm-usage'],
    });
  });
  afterAll(() => browser?.close());

  it('shows the routes to staff only, and tries one, all from here', async () => {
    const { token } = await makeStaff(test);
    const tenant = await makeTenant(test);
    const page = await browser.newPage();
    const complaints: string[] = [];
    const elsewhere: string[] = [];
    const home = `http://127.0.0.1:${api.port}`;
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(String(error)));
    page.on('request', (request) => {
      if (!request.url().startsWith(home) && !request.url().startsWith('data:'))
        elsewhere.push(request.url());
    });
    await page.goto(`${home}/admin/docs`);
    const field = page.getByLabel('Developer token');
    await field.fill(tenant.token);
    await page.getByRole('button', { name: 'Show' }).click();
    await page.getByRole('alert').getByText('for the staff').waitFor();
    await field.fill(token);
    await page.getByRole('button', { name: 'Show' }).click();
    await page.locator('#operations-admin_users-get_admin_v1_users').getByRole('button').first().click();
    await page.getByRole('button', { name: 'Try it out' }).click();
    const answered = page.waitForResponse((response) => response.url().includes('/admin/v1/users'));
    await page.getByRole('button', { name: 'Execute' }).click();
    expect((await answered).status()).toBe(200);
    await page.getByText(tenant.caller.email).first().waitFor();
    expect(
      await page.evaluate('JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])'),
    ).not.toContain('lh_');
    await page.close();
    expect(elsewhere).toEqual([]);
    expect(complaints.filter((text) => !text.includes('403 (Forbidden)'))).toEqual([]);
  });
});
