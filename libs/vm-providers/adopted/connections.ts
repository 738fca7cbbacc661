import { z } from 'zod';

/** `sun_path` holds 108 bytes, the last one a NUL. */
const socketPath = z
  .string()
  .regex(/^\/[^\0]+$/, 'expected an absolute path')
  .refine((path) => Buffer.byteLength(path) <= 107, 'the path of a socket has at most 107 bytes');

/** A VM that somebody else's QEMU process runs. */
export const qemuConnection = z.strictObject({
  /** Unix sockets on this host: QMP's, which nobody else uses, and that of the guest agent's character device. */
  qmp: socketPath,
  agent: socketPath,
  /** As `query-uuid` says: all zeros when QEMU was given none. */
  uuid: z.guid(),
});

/** A VM of which we have the guest agent's socket only. */
export const guestAgentConnection = qemuConnection.pick({ agent: true });

/** A machine that is reached by SSH. */
export const sshConnection = z.strictObject({
  host: z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9.:%_-]{0,252}[A-Za-z0-9])?$/, 'not a host'),
  port: z.int().min(1).max(65_535),
  user: z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/, 'not a user'),
  hostKey: z.string().max(2_000),
});

/** What it takes to log in; kept sealed. */
export const sshCredential = z.union([
  z.strictObject({ privateKey: z.string().max(20_000) }),
  z.strictObject({ password: z.string().min(1).max(1_000) }),
]);

export type GuestAgentConnection = z.output<typeof guestAgentConnection>;
export type QemuConnection = z.output<typeof qemuConnection>;
export type SshConnectionDetails = z.output<typeof sshConnection>;

/** Where a provider finds how to reach what it did not make: the rows are the worker's affair. */
export interface Machines<T> {
  /** undefined for an id that nobody has adopted. */
  find(id: string): Promise<T | undefined>;
  ids(): Promise<string[]>;
}
