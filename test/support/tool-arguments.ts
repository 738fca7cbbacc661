/**
 * A value that a tool takes, for each argument of which its schema alone does not say one. A tool that wants something new
 * must be given it here.
 */
export const TOOL_ARGUMENTS: Record<string, unknown> = {
  action: 'stop',
  answers: [{ key: 'q', action: 'accept', content: { sure: true } }],
  command: 'true',
  enabled: true,
  hostname: 'renamed',
  image: 'default',
  name: 'laptop',
  public_key:
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody@example.test',
  stream: 'stdout',
};
