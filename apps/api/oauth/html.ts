import { createHash } from 'node:crypto';

/** Text that is HTML already. */
export class Html {
  constructor(readonly text: string) {}
}

type Value = string | Html | readonly Html[];

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

const toText = (value: Value): string => {
  if (value instanceof Html) return value.text;
  if (typeof value !== 'string') return value.map(({ text }) => text).join('');
  return value.replace(/[&<>"']/g, (character) => ENTITIES[character]!);
};

/** Everything that is put into it is escaped, unless it was made by `html` itself. */
export const html = (parts: TemplateStringsArray, ...values: Value[]): Html =>
  new Html(parts.map((part, index) => (index === 0 ? part : toText(values[index - 1]!) + part)).join(''));

const STYLE = `
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 0; display: grid; place-items: center; min-height: 100vh; }
main { width: min(32rem, calc(100vw - 3rem)); padding: 2rem 0; }
h1 { font-size: 1.5rem; line-height: 1.25; }
label, legend { font-weight: 600; }
fieldset { border: 1px solid; border-radius: .5rem; margin: 1rem 0; }
fieldset label { display: flex; gap: .75rem; padding: .25rem 0; font-weight: 400; }
input:not([type=checkbox]) { display: block; width: 100%; box-sizing: border-box; margin: .25rem 0 1rem; padding: .5rem; font: inherit; }
input[type=checkbox] { width: 1.25rem; height: 1.25rem; flex: none; }
button { font: inherit; padding: .5rem 1.5rem; margin-right: .5rem; }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
[role=alert], .warning { border-left: .25rem solid; padding-left: .75rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; } small { display: block; }
`;

const STYLE_ELEMENT = new Html(`<style>${STYLE}</style>`);
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64');

export const page = (title: string, body: Html): string =>
  html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} – Longhaul</title>
        ${STYLE_ELEMENT}
      </head>
      <body>
        <main>${body}</main>
      </body>
    </html> `.text;

/**
 * Nothing is loaded, run, framed or cached. `redirectUri` is where the answer to a form may lead to in the end: browsers hold
 * that against the form too.
 */
export function pageHeaders(redirectUri?: string): Record<string, string> {
  const policy = [
    "default-src 'none'",
    `style-src 'sha256-${STYLE_HASH}'`,
    `form-action 'self'${redirectUri === undefined ? '' : ` ${sourceOf(redirectUri)}`}`,
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ];
  return {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': policy.join('; '),
    'x-frame-options': 'DENY',
    'x-content-type-options': 'nosniff',
    // With none at all, browsers would not say either that a form comes from here.
    'referrer-policy': 'same-origin',
    'cache-control': 'no-store',
  };
}

/** Policies cannot name IPv6 addresses, and apps have a scheme only. */
function sourceOf(uri: string): string {
  const { protocol, hostname, origin } = new URL(uri);
  return protocol.startsWith('http') && !hostname.startsWith('[') ? origin : protocol;
}
