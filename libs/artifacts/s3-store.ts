import { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  NotFound,
  NoSuchKey,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { ConfigError } from '@longhaul/config';
import { parseId } from '@longhaul/persistence';
import type { ArtifactsConfig } from './config.js';
import { CONTENT_TYPE, type ContentUrls } from './content-urls.js';
import { notUploaded } from './failures.js';
import { ArtifactStore, type ByteRange, type Declared, type StoredBytes, type Upload } from './store.js';

/** How long one of our own objects may take, of up to some 20 MiB. */
const PUT_MS = 60_000;
/** What the server must find in an upload just as it was signed; by default the signer would leave some out or into the query. */
const SIGNED = new Set(['host', 'content-type', 'content-length', 'if-none-match']);
const KEPT_AS_HEADERS = new Set(['x-amz-checksum-sha256', 'if-none-match']);

/** An object each, in one bucket. Clients upload to and VMs download from the S3 server. */
export class S3Store extends ArtifactStore {
  constructor(
    private readonly client: S3Client,
    private readonly bucket: string,
    private readonly urls: ContentUrls,
    private readonly isOnce: boolean,
    private readonly folder: string,
  ) {
    super();
  }

  /** Errors: ConfigError. */
  static open(config: ArtifactsConfig, urls: ContentUrls, folder = 'artifacts'): S3Store {
    const { S3_ENDPOINT, S3_REGION, S3_BUCKET, S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY } = config;
    if (S3_BUCKET === undefined) throw new ConfigError('ARTIFACTS_STORE=s3 needs S3_BUCKET.');
    if ((S3_ACCESS_KEY_ID === undefined) !== (S3_SECRET_ACCESS_KEY === undefined))
      throw new ConfigError('S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none.');
    const client = new S3Client({
      region: S3_REGION,
      // Servers other than that of AWS seldom have a host name for each bucket.
      ...(S3_ENDPOINT !== undefined && { endpoint: S3_ENDPOINT, forcePathStyle: true }),
      ...(S3_ACCESS_KEY_ID !== undefined && {
        credentials: { accessKeyId: S3_ACCESS_KEY_ID, secretAccessKey: S3_SECRET_ACCESS_KEY! },
      }),
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: 3,
      requestHandler: { connectionTimeout: 5_000, socketTimeout: 30_000 },
    });
    return new S3Store(client, S3_BUCKET, urls, config.S3_CONDITIONAL_WRITES, folder);
  }

  async check(abortSignal: AbortSignal): Promise<void> {
    await this.client.send(new HeadBucketCommand({ Bucket: this.bucket }), { abortSignal });
  }

  async uploadUrl({ id, sizeBytes, sha256, uploadUntil }: Declared): Promise<Upload> {
    const checksum = Buffer.from(sha256).toString('base64');
    const command = new PutObjectCommand({
      ...this.at(id),
      ContentLength: Number(sizeBytes),
      ContentType: CONTENT_TYPE,
      ChecksumSHA256: checksum,
      ...(this.isOnce && { IfNoneMatch: '*' }),
    });
    const signingDate = await this.urls.now();
    const url = await getSignedUrl(this.client, command, {
      signingDate,
      expiresIn: Math.max(1, Math.floor((uploadUntil.getTime() - signingDate.getTime()) / 1000)),
      signableHeaders: SIGNED,
      unhoistableHeaders: KEPT_AS_HEADERS,
    });
    const headers = {
      'content-type': CONTENT_TYPE,
      'content-length': String(sizeBytes),
      'x-amz-checksum-sha256': checksum,
      ...(this.isOnce && { 'if-none-match': '*' }),
    };
    return { url, method: 'PUT', headers, expiresAt: uploadUntil };
  }

  async downloadUrl(artifact: Declared, seconds: number, gateway?: string): Promise<string> {
    if (gateway !== undefined) return this.urls.forDownload(gateway, artifact, seconds);
    const signingDate = await this.urls.now();
    const command = new GetObjectCommand(this.at(artifact.id));
    return getSignedUrl(this.client, command, { signingDate, expiresIn: seconds });
  }

  async put(id: string, bytes: Buffer): Promise<void> {
    const command = new PutObjectCommand({
      ...this.at(id),
      Body: bytes,
      ContentType: CONTENT_TYPE,
      ...(this.isOnce && { IfNoneMatch: '*' }),
    });
    await this.client.send(command, { abortSignal: AbortSignal.timeout(PUT_MS) });
  }

  async read(id: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable> {
    if (range?.length === 0) return Readable.from([]);
    const Range = range && `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const command = new GetObjectCommand({ ...this.at(id), Range });
    const found = await this.client.send(command, { abortSignal: signal }).catch(absent);
    if (!found) throw notUploaded();
    return found.Body as Readable;
  }

  async stat(id: string): Promise<StoredBytes | undefined> {
    const command = new HeadObjectCommand({ ...this.at(id), ChecksumMode: 'ENABLED' });
    const found = await this.client.send(command).catch(absent);
    const sha256 = found?.ChecksumSHA256 && Buffer.from(found.ChecksumSHA256, 'base64');
    return found && { sizeBytes: found.ContentLength ?? 0, ...(sha256 && { sha256 }) };
  }

  async delete(id: string): Promise<void> {
    await this.client.send(new DeleteObjectCommand(this.at(id))).catch(absent);
  }

  async collect(
    before: Date,
    known: (ids: string[]) => Promise<ReadonlySet<string>>,
    stop: AbortSignal,
  ): Promise<number> {
    let deleted = 0;
    let token: string | undefined;
    do {
      const page = await this.client.send(
        new ListObjectsV2Command({
          Bucket: this.bucket,
          Prefix: `${this.folder}/`,
          ContinuationToken: token,
        }),
      );
      const old = (page.Contents ?? []).filter(({ LastModified }) => LastModified && LastModified < before);
      const ids = old.flatMap(({ Key = '' }) => parseId(Key.slice(this.folder.length + 1)) ?? []);
      const kept = await known(ids);
      for (const id of ids.filter((id) => !kept.has(id))) {
        await this.delete(id);
        deleted++;
      }
      token = page.NextContinuationToken;
    } while (token !== undefined && !stop.aborted);
    return deleted;
  }

  private at(id: string) {
    return { Bucket: this.bucket, Key: `${this.folder}/${id}` };
  }
}

function absent(error: unknown): undefined {
  if (!(error instanceof NotFound || error instanceof NoSuchKey)) throw error;
}
