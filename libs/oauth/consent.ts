import { SCOPES, type Scope } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { newId } from '@longhaul/persistence';
import type Provider from 'oidc-provider';
import { saveGrant } from './grants.js';
import type { Oauth } from './oauth.js';

export type Interaction = Awaited<ReturnType<Provider['interactionDetails']>>;

/** What a person is asked. */
export interface Consent {
  email: string;
  client: {
    id: string;
    /** As it calls itself. */
    name?: string;
    redirectUri: string;
    /** It has registered itself; any other is known by a document at the URL that is its id. */
    selfRegistered: boolean;
  };
  scopes: Scope[];
  /** At most 200. */
  projects: { id: string; name: string }[];
}

export interface Choice {
  scopes: string[];
  projectIds: string[];
}

const MAX_PROJECTS = 200;

export async function readConsent(oauth: Oauth, { params, session }: Interaction): Promise<Consent> {
  const provider = await oauth.provider();
  const [client, user] = await Promise.all([
    provider.Client.find(String(params.client_id)),
    oauth.db.user.findUniqueOrThrow({
      where: { id: session!.accountId },
      include: { projects: { include: { project: true }, take: MAX_PROJECTS } },
    }),
  ]);
  if (!client) throw new AppError('invalid_arguments', 'This app is not known any more.');
  return {
    email: user.email,
    client: {
      id: client.clientId,
      name: client.clientName,
      redirectUri: String(params.redirect_uri),
      selfRegistered: !('clientIdMetadataDocument' in client),
    },
    scopes: SCOPES.filter((scope) => wordsOf(params.scope).includes(scope)),
    projects: user.projects
      .map(({ project: { id, name } }) => ({ id, name }))
      .sort((one, other) => one.name.localeCompare(other.name)),
  };
}

/**
 * Stores what the person lets the client do, never more than it has asked for; answers the id of the grant. Errors:
 * `invalid_arguments` for a choice that leaves nothing, or that was not offered.
 */
export async function giveConsent(oauth: Oauth, interaction: Interaction, choice: Choice): Promise<string> {
  const { client, scopes, projects } = await readConsent(oauth, interaction);
  const granted = scopes.filter((scope) => choice.scopes.includes(scope));
  const projectIds = projects.map(({ id }) => id).filter((id) => choice.projectIds.includes(id));
  if (granted.length < choice.scopes.length || projectIds.length < choice.projectIds.length)
    throw new AppError('invalid_arguments', 'Choose among what is shown.');
  if (granted.length === 0)
    throw new AppError('invalid_arguments', 'Choose at least one permission, or refuse.');
  if (projectIds.length === 0 && projects.length > 0)
    throw new AppError('invalid_arguments', 'Choose at least one project, or refuse.');

  const provider = await oauth.provider();
  const userId = interaction.session!.accountId!;
  const grant = new provider.Grant({ accountId: userId, clientId: client.id });
  grant.jti = newId();
  // Scopes of OpenID say nothing about what the client may do here.
  const openid = wordsOf(interaction.params.scope).filter((scope) =>
    ['openid', 'offline_access'].includes(scope),
  );
  if (openid.length > 0) grant.addOIDCScope(openid);
  grant.addResourceScope(oauth.resource, granted);
  const refused = scopes.filter((scope) => !granted.includes(scope));
  if (refused.length > 0) grant.rejectResourceScope(oauth.resource, refused);
  await saveGrant(oauth.db, grant.jti, {
    userId,
    clientId: client.id,
    clientName: client.name,
    scopes: granted,
    projectIds,
  });
  return grant.save();
}

const wordsOf = (text: unknown) => (typeof text === 'string' ? text.split(' ') : []);
