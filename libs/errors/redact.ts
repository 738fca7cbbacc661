const SECRET_KEY = /pass(word|phrase)?|secret|token|authorization|credential|private_?key|cookie|signature/i;
const SECRET_TEXT =
  /\b(lh_[A-Za-z0-9_-]{8})[A-Za-z0-9_-]+|\b(Bearer|Basic)\s+[^\s"',;]+|([?&](?:X-Amz-Signature|signature|token)=)[^&\s"']+/gi;

/** Bounds of a redacted value: what is deeper, longer or more is cut and marked. */
export interface RedactLimits {
  depth: number;
  items: number;
  characters: number;
}

const DEFAULT_LIMITS: RedactLimits = { depth: 6, items: 50, characters: 1024 };

/**
 * A copy of `value` fit for logs and audit: secrets by key name or by their look are replaced, strings, lists and depth
 * are cut to `limits`. NUL is replaced too, as PostgreSQL's jsonb refuses it.
 */
export function redact(value: unknown, limits: RedactLimits = DEFAULT_LIMITS): unknown {
  return walk(value, limits, 0);
}

function walk(value: unknown, limits: RedactLimits, depth: number): unknown {
  if (typeof value === 'string') return redactText(value, limits.characters);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= limits.depth) return '[deeper]';
  if (Array.isArray(value)) {
    const items = value.slice(0, limits.items).map((item) => walk(item, limits, depth + 1));
    return value.length > limits.items ? [...items, `[${value.length - limits.items} more]`] : items;
  }
  const entries = Object.entries(value)
    .slice(0, limits.items)
    .map(([key, item]) => [
      redactText(key, 128),
      SECRET_KEY.test(key) && item !== null ? '[redacted]' : walk(item, limits, depth + 1),
    ]);
  return Object.fromEntries(entries);
}

/** As `redact`, for one string of at most `characters` characters. */
export function redactText(text: string, characters = DEFAULT_LIMITS.characters): string {
  const clean = text
    .slice(0, characters)
    .replaceAll('\0', '\uFFFD')
    .toWellFormed()
    .replace(SECRET_TEXT, (_match, token?: string, scheme?: string, query?: string) =>
      token ? `${token}[redacted]` : scheme ? `${scheme} [redacted]` : `${query}[redacted]`,
    );
  return text.length > characters ? `${clean}[${text.length - characters} more characters]` : clean;
}
