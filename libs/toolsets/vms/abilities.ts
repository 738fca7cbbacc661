import { AppError } from '@longhaul/errors';

const WITHOUT: Record<string, string> = {
  create: 'be made or removed',
  power: 'be switched on and off',
  reinstall: 'be reinstalled',
  resize: 'be resized',
};

/**
 * `abilities` are those of a VM's provider; of a VM that nobody has looked at yet they are not known. Errors:
 * `vm_state_blocked` for what it cannot do.
 */
export function requireAbility(abilities: Iterable<string> | undefined, ability: keyof typeof WITHOUT): void {
  if (abilities === undefined || [...abilities].includes(ability)) return;
  throw new AppError('vm_state_blocked', `This VM cannot ${WITHOUT[ability]} from here.`, { ability });
}
