import { SCOPE_MEANINGS, type Choice, type Consent } from '@longhaul/oauth';
import { html, page, type Html } from './html.js';

/** Where the forms of an interaction go, and what shows that they come from our page. */
export interface Form {
  path: string;
  mark: string;
}

export function loginPage({ path, mark }: Form, client: string, email = '', problem?: string): string {
  return page(
    'Log in',
    html`<h1>Log in to Longhaul</h1>
      <p>${client} wants to work on your virtual machines. Log in, then you are asked what it may do.</p>
      ${alert(problem)}
      <form method="post" action="${path}/login">
        <input type="hidden" name="mark" value="${mark}" />
        <label for="email">E-mail address</label>
        <input
          id="email"
          name="email"
          type="email"
          autocomplete="username"
          required
          maxlength="254"
          value="${email}"
        />
        <label for="password">Password</label>
        <input
          id="password"
          name="password"
          type="password"
          autocomplete="current-password"
          required
          maxlength="512"
        />
        <button type="submit">Log in</button>
      </form>`,
  );
}

export function consentPage(
  { path, mark }: Form,
  consent: Consent,
  problem?: string,
  choice?: Choice,
): string {
  const { client, email, scopes, projects } = consent;
  const name = client.name ?? client.id;
  const box = (field: 'scopes' | 'projectIds', value: string, label: Html) => {
    const checked = !choice || choice[field].includes(value) ? html` checked` : '';
    return html`<label
      ><input type="checkbox" name="${field}" value="${value}" ${checked} /> <span>${label}</span></label
    > `;
  };
  return page(
    'Allow access',
    html`<h1>Let ${name} act for you?</h1>
      <p>You are logged in as ${email}.</p>
      ${alert(problem)}
      <dl>
        <dt>It calls itself</dt>
        <dd>${name}</dd>
        <dt>It is known by</dt>
        <dd>${client.id}</dd>
        <dt>You will be sent back to</dt>
        <dd>${placeOf(client.redirectUri)}</dd>
      </dl>
      ${client.selfRegistered ? html`<p class="warning">This app has registered itself: nobody has checked that it is what it calls itself. Go on only if you have just started it.</p>` : ''}
      <form method="post" action="${path}/consent">
        <input type="hidden" name="mark" value="${mark}" />
        <fieldset>
          <legend>What it may do</legend>
          ${scopes.map((scope) => box('scopes', scope, html`${SCOPE_MEANINGS[scope]} <small><code>${scope}</code></small>`))}
        </fieldset>
        ${
          projects.length > 0
            ? html`<fieldset>
                <legend>In which projects</legend>
                ${projects.map(({ id, name }) => box('projectIds', id, html`${name}`))}
              </fieldset>`
            : html`<p>You are in no project yet.</p>`
        }
        <p>It keeps this access for at most 30 days. You can take it back at any time.</p>
        <button type="submit" name="decision" value="allow">Allow</button>
        <button type="submit" name="decision" value="refuse">Refuse</button>
        <button type="submit" name="decision" value="switch">Use another account</button>
      </form>`,
  );
}

export function errorPage(title: string, message: string): string {
  return page(
    title,
    html`<h1>${title}</h1>
      <p role="alert">${message}</p>`,
  );
}

const alert = (problem?: string) => (problem === undefined ? '' : html`<p role="alert">${problem}</p>`);

/** In words, so that a familiar path cannot hide an unfamiliar host. */
function placeOf(uri: string): string {
  const { protocol, hostname, host } = new URL(uri);
  if (['localhost', '127.0.0.1', '[::1]'].includes(hostname)) return `a program on this computer (${host})`;
  return protocol === 'https:' ? host : `the app that opens ${protocol} addresses`;
}
