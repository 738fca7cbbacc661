import type { Readable } from 'node:stream';
import type { Artifact } from '@longhaul/persistence';

/** What a store needs to know of an artifact. */
export type Declared = Pick<Artifact, 'id' | 'sizeBytes' | 'sha256' | 'uploadUntil'>;

/** How a client is to send the bytes. */
export interface Upload {
  /** Whoever has it may upload: it is a secret. */
  url: string;
  method: 'PUT';
  /** To be sent exactly so. */
  headers: Record<string, string>;
  expiresAt: Date;
}

export interface StoredBytes {
  sizeBytes: number;
  /** Undefined where the store has computed none: then nobody has compared it yet. */
  sha256?: Buffer;
}

/** Bytes of a file, both within it. */
export interface ByteRange {
  offset: number;
  length: number;
}

/** Keeps the bytes of artifacts under their ids. What is stored is never changed, only deleted. */
export abstract class ArtifactStore {
  /** Rejects when the store is away or takes no files. Changes none. */
  abstract check(signal: AbortSignal): Promise<void>;

  /** Takes just the length, type and (where the store can) digest that were declared, once, until `uploadUntil`. */
  abstract uploadUrl(artifact: Declared): Promise<Upload>;

  /**
   * For GET, with ranges, by whoever has it. `gateway` is an origin under which the reader reaches our API, such as
   * `http://10.0.2.100`: the bytes go through there then, whatever the store. Undefined when no address is known that the
   * reader could reach.
   */
  abstract downloadUrl(artifact: Declared, seconds: number, gateway?: string): Promise<string | undefined>;

  /**
   * Stores what we have made ourselves; all of it or nothing. Takes at most a minute. Errors: `conflict` when there is something
   * already, where the store can tell; `unavailable` without space.
   */
  abstract put(id: string, bytes: Buffer): Promise<void>;

  /**
   * All of it, or a range. Errors: `artifact_not_uploaded`; the reason of `signal`. Whoever does not read to the end destroys the
   * stream.
   */
  abstract read(id: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable>;

  /** Undefined when there is nothing. */
  abstract stat(id: string): Promise<StoredBytes | undefined>;

  /** Deleting what is not there is no error. */
  abstract delete(id: string): Promise<void>;

  /**
   * Deletes what was stored before `before` and belongs to no artifact: `known` answers which of up to 1000 ids are. Answers how
   * many it were.
   */
  abstract collect(
    before: Date,
    known: (ids: string[]) => Promise<ReadonlySet<string>>,
    stop: AbortSignal,
  ): Promise<number>;
}

/** For archived logs: in the same place as artifacts, in a folder of its own, which nobody takes for artifacts. */
export abstract class LogStore extends ArtifactStore {}
