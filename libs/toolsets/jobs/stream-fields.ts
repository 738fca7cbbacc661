import { AppError } from '@longhaul/errors';
import { encodeSlice, type LogSlice, type LogStream } from '@longhaul/job-log';
import { isFinal } from '@longhaul/jobs';
import type { Call } from '@longhaul/mcp';
import type { Job } from '@longhaul/persistence';
import { z } from 'zod';

type StreamShape<Name extends LogStream> = { [K in Name]: z.ZodString } & {
  [K in `${Name}_encoding`]: z.ZodEnum<{ 'utf-8': 'utf-8'; base64: 'base64' }>;
} & { [K in `next_${Name}_offset`]: z.ZodInt } & { [K in `${Name}_eof`]: z.ZodBoolean } & {
  [K in `${Name}_truncated_bytes`]: z.ZodOptional<z.ZodInt>;
};

type StreamFields<Name extends LogStream> = z.output<z.ZodObject<StreamShape<Name>>>;

/** How an answer shows a slice of a stream, the same in every tool. */
export const streamShape = <Name extends LogStream>(name: Name) =>
  ({
    [name]: z.string(),
    [`${name}_encoding`]: z.enum(['utf-8', 'base64']),
    [`next_${name}_offset`]: z.int().describe('Pass it back to read on'),
    [`${name}_eof`]: z.boolean().describe('Nothing will ever follow'),
    [`${name}_truncated_bytes`]: z
      .int()
      .optional()
      .describe('Bytes beyond the size limit of a log, not kept'),
  }) as unknown as StreamShape<Name>;

/** `slice` was read from `offset`; offsets count the stream's own bytes, whatever the encoding. */
export function streamFields<Name extends LogStream>(
  name: Name,
  slice: LogSlice,
  offset: number,
): StreamFields<Name> {
  const atEnd = slice.closed && offset + slice.data.length >= slice.size;
  const { text, encoding, bytes } = encodeSlice(slice.data, !atEnd);
  return {
    [name]: text,
    [`${name}_encoding`]: encoding,
    [`next_${name}_offset`]: offset + bytes,
    [`${name}_eof`]: slice.closed && offset + bytes >= slice.size,
    ...(slice.dropped > 0 && { [`${name}_truncated_bytes`]: slice.dropped }),
  } as StreamFields<Name>;
}

export function requireOffset(argument: string, offset: number, { size }: LogSlice): void {
  if (offset <= size) return;
  throw new AppError(
    'invalid_arguments',
    `${argument}: the stream has ${size} bytes now; give at most that.`,
    {
      argument,
      size,
    },
  );
}

/** The call's job beside slices read after it was looked up: the end of a stream is never shown with a status from before it. */
export async function jobBeside(
  call: Call<{ vm: undefined; job: Job }>,
  ...slices: LogSlice[]
): Promise<Job> {
  const { job, caller, services } = call;
  const outdated = !isFinal(job.state) && slices.some(({ closed }) => closed);
  return outdated ? services.jobs.find(job.id, caller) : job;
}
