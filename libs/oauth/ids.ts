import { createHash } from 'node:crypto';

/** What is random enough to be stored by a plain hash: tokens, codes, secrets of machines. */
export const hashId = (id: string) => createHash('sha256').update(id).digest('base64url');
