import type { Scope } from '@longhaul/access';

/** As the consent page says it to a person. */
export const SCOPE_MEANINGS: Record<Scope, string> = {
  'vms:read': 'See your virtual machines, their state, and the jobs and output of commands',
  'vms:power': 'Start, stop and reset your virtual machines',
  'vms:exec': 'Run any command on your virtual machines, as root',
  'vms:files': 'Read the files of your virtual machines, as root, except known secrets',
  'vms:console': 'Use the console of your virtual machines',
  'services:read': 'See your services',
  'services:write': 'Order, change and cancel services',
  'projects:read': 'See your projects and who is in them',
  'projects:write': 'Change your projects and who is in them',
  'account:read': 'See your account',
  'billing:read': 'See invoices and costs',
  'search:read': 'Search in all that you may see',
};

/** For clients that do not say what they want: to look, not to touch. More is asked for when it is needed. */
export const DEFAULT_SCOPES = (Object.keys(SCOPE_MEANINGS) as Scope[]).filter((scope) =>
  scope.endsWith(':read'),
);
