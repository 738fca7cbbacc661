import ssh2 from 'ssh2';
import { makeSshKey } from '../../../test/support/ssh-key.js';
import { parsePublicKey } from './public-key.js';

const { generateKeyPairSync } = ssh2.utils;
const ed25519 = makeSshKey().public;
const rsa = (bits: number) => generateKeyPairSync('rsa', { bits }).public;

it.each([
  ['ed25519', ed25519],
  ['rsa', rsa(2048)],
  ['ecdsa 256', generateKeyPairSync('ecdsa', { bits: 256 }).public],
  ['ecdsa 384', generateKeyPairSync('ecdsa', { bits: 384 }).public],
  ['ecdsa 521', generateKeyPairSync('ecdsa', { bits: 521 }).public],
])('takes a key of %s, with and without comment', (_name, line) => {
  const parsed = parsePublicKey(line);
  expect(parsed).toMatchObject({ line, fingerprint: expect.stringMatching(/^SHA256:[A-Za-z0-9+/]{43}$/) });
  const named = parsePublicKey(`  ${line} me@laptop of mine \n`);
  expect(named).toEqual({ line: `${line} me@laptop of mine`, fingerprint: parsed!.fingerprint });
});

it('knows the fingerprint that ssh-keygen shows', () => {
  const line = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA';
  expect(parsePublicKey(line)!.fingerprint).toBe('SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk');
});

const [type, body] = ed25519.split(' ') as [string, string];
const bytes = Buffer.from(body, 'base64');
const withBytes = (data: Buffer) => `${type} ${data.toString('base64')}`;

it.each([
  ['nothing', ''],
  ['a type alone', type],
  ['another type than the body says', `ssh-rsa ${body}`],
  ['an old type', `ssh-dss ${body}`],
  ['a name that every object has', `constructor ${body}`],
  ['a body that is not base64', `${type} ${body.slice(0, -4)}!!!!`],
  ['a body cut short', `${type} ${body.slice(0, -8)}`],
  ['a body with more behind it', withBytes(Buffer.concat([bytes, Buffer.alloc(4)]))],
  ['a length beyond the end', withBytes(Buffer.from([0xff, 0xff, 0xff, 0xff, ...bytes.subarray(4)]))],
  [
    'a key of 31 bytes',
    withBytes(Buffer.concat([bytes.subarray(0, 15), Buffer.from([0, 0, 0, 31]), bytes.subarray(20)])),
  ],
  ['a short RSA key', rsa(1024)],
  ['options before it', `command="id" ${ed25519}`],
  ['two lines', `${ed25519}\n${ed25519}`],
  ['a comment with a line break', `${ed25519} me\nssh-rsa AAAA`],
  ['a comment with a NUL', `${ed25519} me\0`],
  ['a private key', makeSshKey().private],
  ['more than 8 KiB', `${ed25519} ${'a'.repeat(9000)}`],
])('refuses %s', (_name, text) => {
  expect(parsePublicKey(text)).toBeUndefined();
});
