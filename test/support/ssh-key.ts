import ssh2 from 'ssh2';

const { generateKeyPairSync, parseKey } = ssh2.utils;

/** An Ed25519 key pair in OpenSSH's form. One in 256 of those that ssh2 1.17 makes cannot be read: it is made again. */
export function makeSshKey(options: Parameters<typeof generateKeyPairSync>[1] = {}): {
  private: string;
  public: string;
} {
  for (;;) {
    const pair = generateKeyPairSync('ed25519', options);
    if (!(parseKey(pair.public) instanceof Error)) return pair;
  }
}
