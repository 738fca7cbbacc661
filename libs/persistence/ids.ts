import { randomBytes } from 'node:crypto';

/** 128 random bits written as UUID text. Ids are unguessable, yet never capabilities. */
export function newId(): string {
  const hex = randomBytes(16).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The id in lower case, or undefined for any text that cannot be an id (and must not reach a uuid column). */
export function parseId(text: string): string | undefined {
  const id = text.toLowerCase();
  return ID.test(id) ? id : undefined;
}

/** Of the project of the jobs that Longhaul gives itself, and of the user who submits them; it has no member, and they no row. */
export const SYSTEM_ID = '00000000-0000-0000-0000-000000000000';
