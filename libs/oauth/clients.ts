import { errors, type ClientMetadata, type KoaContextWithOIDC } from 'oidc-provider';

/** Of clients that nobody here has made: each has its redirects in the database and its name on the consent page. */
const MAX_REDIRECTS = 10;
const MAX_URI_LENGTH = 2000;
const MAX_NAME_LENGTH = 100;
/** What a person could not see, or would take for something else. */
const HIDDEN_CHARACTERS = /[\p{C}\p{Zl}\p{Zp}]/u;
const NOT_IN_URIS = /[\s\p{C}@]/u;

const KEPT = new Set([
  'client_id',
  'client_id_issued_at',
  'client_name',
  'client_uri',
  'redirect_uris',
  'grant_types',
  'response_types',
]);
const GRANT_TYPES = ['authorization_code', 'refresh_token'];

type Metadata = Record<string, unknown> & ClientMetadata;

/**
 * What of the metadata of a client counts, changed in place. Clients that come by themselves, by registration or by a metadata
 * document, are public: they have no secret, redirect to https, to the loopback with any port, or to an app of their own, and can
 * do nothing but the code flow. Machine clients are made here and stay as they are.
 */
export function curateClient(ctx: KoaContextWithOIDC | undefined, metadata: Metadata): void {
  const isMachine = !ctx && typeof metadata.client_secret === 'string';
  if (isMachine) return;
  const { redirect_uris: redirects = [], client_name: name = '', client_uri, grant_types: grants } = metadata;
  if (!Array.isArray(redirects) || redirects.length > MAX_REDIRECTS)
    refuse(`redirect_uris has more than ${MAX_REDIRECTS} members`);
  for (const uri of [...redirects, ...(client_uri === undefined ? [] : [client_uri])])
    if (typeof uri !== 'string' || uri.length > MAX_URI_LENGTH || NOT_IN_URIS.test(uri))
      refuse(`URIs must be at most ${MAX_URI_LENGTH} visible characters and name no user`);
  if (typeof name !== 'string' || name.length > MAX_NAME_LENGTH || HIDDEN_CHARACTERS.test(name))
    refuse(`client_name must be at most ${MAX_NAME_LENGTH} visible characters`);
  for (const key of Object.keys(metadata)) if (!KEPT.has(key)) delete metadata[key];
  Object.assign(metadata, {
    // So that the port of a loopback address does not matter, and http goes nowhere else.
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    response_types: ['code'],
    ...(Array.isArray(grants) && { grant_types: GRANT_TYPES.filter((type) => grants.includes(type)) }),
  });
}

function refuse(message: string): never {
  throw new errors.InvalidClientMetadata(message);
}
