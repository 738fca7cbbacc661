import type { Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { Vm } from '@longhaul/persistence';
import type { Tool } from './tool.js';

// What a tool asks for, one gate each; the pipeline knows their order.

export const hasScope = (tool: Tool, caller: Caller) =>
  tool.scope === 'any' || caller.scopes.includes(tool.scope);

export const scopeMissing = ({ name, scope }: Tool) =>
  new AppError('forbidden_scope', `${name} needs a token with the scope ${scope}.`, {
    required_scope: scope,
  });

export function requireScope(tool: Tool, caller: Caller) {
  if (!hasScope(tool, caller)) throw scopeMissing(tool);
}

export function requireRunning(vm: Vm) {
  // What has not been observed yet may well be running: the worker finds out.
  if (vm.powerState === 'running' || vm.powerState === 'unknown') return;
  throw new AppError('vm_state_blocked', `The VM is ${vm.powerState}. Start it, then call again.`, {
    power_state: vm.powerState,
    observed_at: vm.observedAt?.toISOString(),
  });
}

export function requireExec(vm: Vm) {
  if (vm.execSuspended) {
    throw new AppError('mcp_exec_disabled', 'The operator has switched commands off on this VM.', {
      by: 'operator',
    });
  }
  if (vm.execEnabled) return;
  throw new AppError(
    'mcp_exec_disabled',
    'Commands are switched off on this VM, as they are by default. Its owner can switch them on.',
  );
}

export function tasksRequired({ name }: Tool): AppError {
  return new AppError(
    'client_capability_missing',
    `${name} answers with a task, which this client does not know.`,
  );
}
