import { AppError } from '@longhaul/errors';
import type { Caller } from './caller.js';

// What a caller may do, as far as it does not depend on a tool. Pure: all of it is in the caller already.

/** Errors: `switched_off` while MCP is, `vm_state_blocked` for an account that is suspended. */
export function requireOpen({ switches, standing }: Pick<Caller, 'switches' | 'standing'>): void {
  if (switches.mcp !== undefined) throw switchedOff('mcp', 'MCP is switched off for everybody', switches.mcp);
  if (standing === 'suspended') {
    throw new AppError('vm_state_blocked', 'This account is suspended. Ask the operator why.', { standing });
  }
}

/** For what runs commands. Errors: `switched_off`. */
export function requireExecSwitch({ switches }: Pick<Caller, 'switches'>): void {
  if (switches.exec !== undefined)
    throw switchedOff('exec', 'Running commands is switched off for everybody', switches.exec);
}

/**
 * For what does more than read, in a project or, without one, at all. Errors: `vm_state_blocked` for an account that is flagged,
 * `forbidden_role` for a viewer.
 */
export function requireChange(
  { standing, roles }: Pick<Caller, 'standing' | 'roles'>,
  projectId?: string,
): void {
  if (standing !== 'good') {
    const message = 'This account is flagged: it may look, but change nothing. Ask the operator why.';
    throw new AppError('vm_state_blocked', message, { standing });
  }
  if (projectId !== undefined && roles[projectId] === 'viewer') throw forbiddenRole();
}

/** Whether `requireChange` would let it pass. */
export const mayChange = ({ standing, roles }: Caller, projectId: string): boolean =>
  standing === 'good' && roles[projectId] !== 'viewer';

/**
 * Where something new goes that is on no VM: the project that is `wanted`, or the first that it may be made in. Errors:
 * `forbidden_role`; `not_found` for a project that is not the caller's.
 */
export function projectFor({ projectIds, roles, vmIds }: Caller, wanted?: string): string {
  if (wanted !== undefined && !projectIds.includes(wanted))
    throw new AppError('not_found', 'You have no project of that id. whoami shows yours.');
  const candidates = wanted === undefined ? projectIds : [wanted];
  const projectId = vmIds ? undefined : candidates.find((id) => roles[id] !== 'viewer');
  if (projectId === undefined) throw forbiddenRole();
  return projectId;
}

const forbiddenRole = () =>
  new AppError(
    'forbidden_role',
    'This needs the role member, admin or owner in the project; a viewer only reads.',
    { required_role: 'member' },
  );

function switchedOff(name: string, what: string, reason: string): AppError {
  return new AppError('switched_off', `${what} by the operator${reason && `: ${reason}`}.`, {
    switch: name,
    reason,
  });
}
