import { createHmac, timingSafeEqual } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Database } from '@longhaul/persistence';
import { StoredSecrets } from '@longhaul/secrets';
import type { Declared } from './store.js';

/** Of every upload; what it is of does not matter to us. */
export const CONTENT_TYPE = 'application/octet-stream';

/** `GET` and `PUT` of `/artifacts/{id}/content` on our API, for those who hold such an address. */
@Injectable()
export class ContentUrls {
  /** Under which clients reach the API; known once it listens, and nowhere else. */
  origin?: string;
  private key?: Promise<Buffer>;

  constructor(
    private readonly secrets: StoredSecrets,
    private readonly db: Database,
  ) {}

  now(): Promise<Date> {
    return this.db.now();
  }

  /** For a reader, `seconds` from now. */
  async forDownload(origin: string, artifact: Declared, seconds: number): Promise<string> {
    return this.make('GET', origin, artifact, await this.db.now(seconds * 1000));
  }

  async make(method: 'GET' | 'PUT', origin: string, artifact: Declared, expiresAt: Date): Promise<string> {
    const expires = Math.floor(expiresAt.getTime() / 1000);
    const signature = await this.sign(method, artifact, expires);
    return `${origin}/artifacts/${artifact.id}/content?expires=${expires}&signature=${signature.toString('base64url')}`;
  }

  /** Whether `signature`, of base64url, was made for this; whether the time is over is another question. */
  async verify(
    method: 'GET' | 'PUT',
    artifact: Declared,
    expires: number,
    signature: string,
  ): Promise<boolean> {
    const expected = await this.sign(method, artifact, expires);
    const given = Buffer.from(signature, 'base64url');
    return given.length === expected.length && timingSafeEqual(given, expected);
  }

  /** With all that was declared, so that an address holds for that only. */
  private async sign(method: string, artifact: Declared, expires: number): Promise<Buffer> {
    const { id, sizeBytes, sha256 } = artifact;
    const digest = Buffer.from(sha256).toString('hex');
    return createHmac('sha256', await this.shared())
      .update([method, id, expires, sizeBytes, CONTENT_TYPE, digest].join('\n'))
      .digest();
  }

  private shared(): Promise<Buffer> {
    return (this.key ??= this.secrets.signingKey('artifacts').catch((error: unknown) => {
      this.key = undefined;
      throw error;
    }));
  }
}
