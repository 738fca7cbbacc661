import type { Caller, Scope } from '@longhaul/access';
import type { VmSlot } from '@longhaul/jobs';
import type { Job, Vm } from '@longhaul/persistence';
import type { ContentBlock, Tool as ListedTool } from '@modelcontextprotocol/server';
import type { z } from 'zod';
import { parseArguments } from './arguments.js';
import type { Call, Services } from './call.js';
import { inputSchema, outputSchema } from './json-schema.js';
import type { PromptDefinition } from './prompt.js';
import type { Resource } from './resource.js';

/** What every tool declares. The call pipeline keeps it: no tool checks a right, an owner or a state by itself. */
export interface ToolDeclaration<Input extends z.ZodObject, Output extends z.ZodObject> {
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
  /**
   * What is asked of the VM that `vm_id` names: that it is not known to be off, that its owner lets commands in, that the slot
   * which the tool's job takes is free before a person is asked to confirm; `alone`: every slot, unless an argument `force`
   * is true.
   */
  vm?: { running?: true; exec?: true; slot?: VmSlot; alone?: true };
  confirmation?: Confirmation<Resolved<z.output<Input>>, z.output<Input>>;
  /**
   * A strict object. Arguments of these names are looked up among the caller's own things before `handle` runs:
   * `vm_id` becomes `call.vm`; `job_id` or `command_id` becomes `call.job`.
   */
  input: Input;
  output: Output;
  /** The answer for those who read content only: a text, or blocks; by default the JSON of the output. */
  content?(output: z.output<Output>): string | ContentBlock[];
}

/** Of a tool that must not be called by mistake; its input has an argument `confirmation`, an optional string. */
export interface Confirmation<Found, Args> {
  /** The exact words that a client gives as `confirmation` when it has no way to ask a person. */
  phrase(found: Found, args: Args): string;
  /** What a person is asked. */
  message(found: Found, args: Args): string;
  /** `person`: the phrase is not enough, whatever the policy of the project. */
  by?: 'person';
}

/** A tool that answers by itself. */
export interface ToolDefinition<
  Input extends z.ZodObject,
  Output extends z.ZodObject,
> extends ToolDeclaration<Input, Output> {
  /** Throws AppError for what the caller can do something about. */
  handle(call: Call<Resolved<z.output<Input>>>, args: z.output<Input>): Promise<z.output<Output>>;
}

/** How a tool does its work as a job. */
export interface JobWork<R extends Found, Args, Output> {
  /**
   * How long a call waits for the end of the job; then it answers with the job as it is. A client that knows tasks gets a
   * task at once instead.
   */
  answerWithinMs: number;
  /** Who does not know tasks cannot call it. */
  task?: 'required';
  submit(call: Call<R>, args: Args): Promise<Job>;
  /**
   * What the tool says about the job, ended or not: the same to who waited and to who asks for the task later. Without a
   * `reader` it is told unasked, so nothing that is told only once belongs in it.
   */
  answer(job: Job, services: Services, reader?: Reader): Promise<Output>;
}

/** Who gets an answer. */
export type Reader = Pick<Caller, 'userId'>;

/** A tool whose work is a job. */
export interface JobToolDefinition<Input extends z.ZodObject, Output extends z.ZodObject>
  extends
    ToolDeclaration<Input, Output>,
    JobWork<Resolved<z.output<Input>>, z.output<Input>, z.output<Output>> {}

/** Which things a handler finds looked up, by the arguments that it takes. */
export type Resolved<Args> = {
  vm: Args extends { vm_id: string } ? Vm : 'vm_id' extends keyof Args ? Vm | undefined : undefined;
  job: Args extends { job_id: string } | { command_id: string } ? Job : undefined;
};

type Output = Record<string, unknown>;
type Args = Record<string, unknown>;
export interface Found {
  vm: Vm | undefined;
  job: Job | undefined;
}

/** A tool as the catalogue holds it: schemas and validators are made once, when it is loaded. */
export interface Tool extends Pick<
  ToolDeclaration<z.ZodObject, z.ZodObject>,
  'name' | 'toolset' | 'scope' | 'vm'
> {
  /** As `tools/list` shows it. */
  readonly listed: ListedTool;
  readonly confirmation?: Confirmation<Found, Args>;
  /** Throws `invalid_arguments`, naming the argument and what it may be. */
  parse(args: unknown): Args;
  content(output: Output): ContentBlock[];
  readonly work: { handle(call: Call, args: Args): Promise<Output> } | JobWork<Found, Args, Output>;
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
  return declared(definition, { handle: definition.handle.bind(definition) });
}

export function defineJobTool<Input extends z.ZodObject, Output extends z.ZodObject>(
  definition: JobToolDefinition<Input, Output>,
): Tool {
  const { answerWithinMs, task } = definition;
  const submit = definition.submit.bind(definition);
  return declared(definition, { answerWithinMs, task, submit, answer: definition.answer.bind(definition) });
}

function declared<Input extends z.ZodObject, Out extends z.ZodObject>(
  definition: ToolDeclaration<Input, Out>,
  work: object,
): Tool {
  const { name, title, description, toolset, scope, vm, confirmation, annotations, input, output } =
    definition;
  if (confirmation && !('confirmation' in input.shape)) {
    throw new Error(`${name} asks for a confirmation but takes none.`);
  }
  const content: (output: never) => string | ContentBlock[] =
    definition.content?.bind(definition) ?? JSON.stringify;
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
    content(output) {
      const said = content(output as never);
      return typeof said === 'string' ? [{ type: 'text', text: said }] : said;
    },
    // The pipeline calls with what `parse` has answered and found, so the types of the definition hold.
    confirmation: confirmation as unknown as Tool['confirmation'],
    work: work as Tool['work'],
  };
}
