import type { Scope } from '@longhaul/access';
import type { Job, Vm } from '@longhaul/persistence';
import type { Tool as ListedTool } from '@modelcontextprotocol/server';
import type { z } from 'zod';
import { parseArguments } from './arguments.js';
import type { Call } from './call.js';
import { inputSchema, outputSchema } from './json-schema.js';
import type { PromptDefinition } from './prompt.js';
import type { Resource } from './resource.js';

/** What a tool declares. The call pipeline keeps it: no tool checks a right, an owner or a state by itself. */
export interface ToolDefinition<Input extends z.ZodObject, Output extends z.ZodObject> {
  /** snake_case, stable, unique in the catalogue. */
  name: string;
  title: string;
  /** What a model reads: what it does, and what to do with the answer. */
  description: string;
  /** The folder it lies in. */
  toolset: string;
  /** What the token must be allowed. `any`: every token may call it, and sees what its scopes allow. */
  scope: Scope | 'any';
  annotations: {
    readOnlyHint: boolean;
    destructiveHint: boolean;
    idempotentHint: boolean;
    openWorldHint: boolean;
  };
  /** What is asked of the VM that `vm_id` names: that it is not known to be off, that its owner lets commands in. */
  vm?: { running?: true; exec?: true };
  /**
   * A strict object. Arguments of these names are looked up among the caller's own things before `handle` runs:
   * `vm_id` becomes `call.vm`; `job_id` or `command_id` becomes `call.job`.
   */
  input: Input;
  output: Output;
  /** The answer for those who read text only; by default its JSON. */
  text?(output: z.output<Output>): string;
  /** Throws AppError for what the caller can do something about. */
  handle(call: Call<Resolved<z.output<Input>>>, args: z.output<Input>): Promise<z.output<Output>>;
}

/** Which things a handler finds looked up, by the arguments that it takes. */
export type Resolved<Args> = {
  vm: Args extends { vm_id: string } ? Vm : 'vm_id' extends keyof Args ? Vm | undefined : undefined;
  job: Args extends { job_id: string } | { command_id: string } ? Job : undefined;
};

/** A tool as the catalogue holds it: schemas and validators are made once, when it is loaded. */
export interface Tool extends Pick<
  ToolDefinition<z.ZodObject, z.ZodObject>,
  'name' | 'toolset' | 'scope' | 'vm'
> {
  /** As `tools/list` shows it. */
  readonly listed: ListedTool;
  /** Throws `invalid_arguments`, naming the argument and what it may be. */
  parse(args: unknown): Record<string, unknown>;
  handle(call: Call, args: Record<string, unknown>): Promise<Record<string, unknown>>;
  text(output: Record<string, unknown>): string;
}

/** What one app serves. */
export interface Catalog {
  /** In the order in which `tools/list` shows them. */
  tools: readonly Tool[];
  /** Every toolset by its name; those of the default set are what a request sees that names none. */
  toolsets: Readonly<Record<string, { default: boolean }>>;
  /** Who may not call the tool of a resource does not see the resource. */
  resources: readonly Resource[];
  prompts: readonly PromptDefinition[];
}

export function defineTool<Input extends z.ZodObject, Output extends z.ZodObject>(
  definition: ToolDefinition<Input, Output>,
): Tool {
  const { name, title, description, toolset, scope, vm, annotations, input, output } = definition;
  return {
    name,
    toolset,
    scope,
    vm,
    listed: {
      name,
      title,
      description,
      annotations,
      inputSchema: inputSchema(name, input),
      outputSchema: outputSchema(output),
    },
    parse: (args) => parseArguments(input, args),
    // The pipeline calls with what `parse` has answered, so the types of the definition hold.
    handle: definition.handle.bind(definition) as unknown as Tool['handle'],
    text: (definition.text?.bind(definition) ?? JSON.stringify) as Tool['text'],
  };
}
