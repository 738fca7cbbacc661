import { AppError, redactText } from '@longhaul/errors';
import type { z } from 'zod';

/** Faults that one answer names. */
const FAULTS_NAMED = 5;

/**
 * The arguments of a call, defaults filled in. Errors: `invalid_arguments`, with every fault in a sentence that names the
 * argument and what it may be. Text must be Unicode without NUL, as neither PostgreSQL nor a guest could keep anything else.
 */
export function parseArguments(schema: z.ZodObject, args: unknown): Record<string, unknown> {
  const parsed = schema.safeParse(args ?? {});
  const faults = parsed.success
    ? textFaults(parsed.data)
    : parsed.error.issues.map((issue) => describe(issue, Object.keys(schema.shape)));
  if (!parsed.success || faults.length > 0) {
    throw new AppError('invalid_arguments', `${faults.slice(0, FAULTS_NAMED).join('. ')}.`);
  }
  return parsed.data;
}

function describe(issue: z.core.$ZodIssue, known: string[]): string {
  if (issue.code === 'unrecognized_keys') {
    const keys = issue.keys.slice(0, FAULTS_NAMED).map((key) => redactText(key, 64));
    return `Unknown argument ${keys.join(', ')}; this tool takes ${known.join(', ') || 'none'}`;
  }
  const where = issue.path.map(String).join('.');
  if (issue.message.endsWith('received undefined')) return `${where}: missing`;
  return `${where || 'arguments'}: ${issue.message}`;
}

function textFaults(args: Record<string, unknown>): string[] {
  return Object.entries(args).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).flatMap((text) => {
      if (typeof text !== 'string') return [];
      if (text.includes('\0')) return [`${name}: must not contain NUL characters`];
      return text.isWellFormed() ? [] : [`${name}: must be valid Unicode; it has half of a surrogate pair`];
    }),
  );
}
