/**
 * A value that a tool takes, for each argument of which its schema alone does not say one. A tool that wants something new
 * must be given it here.
 */
export const TOOL_ARGUMENTS: Record<string, unknown> = {
  action: 'stop',
  answers: [{ key: 'q', action: 'accept', content: { sure: true } }],
  command: 'true',
  destination_path: '/opt/app/app.conf',
  enabled: true,
  filename: 'app.conf',
  hostname: 'renamed',
  image: 'default',
  name: 'laptop',
  path: '/etc/hostname',
  public_key:
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody@example.test',
  purpose: 'config',
  sha256: '0'.repeat(64),
  size_bytes: 4,
  stream: 'stdout',
};
