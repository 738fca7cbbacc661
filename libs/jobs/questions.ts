/** What a job asks a person through the client. */
export interface Question {
  message: string;
  /** JSON Schema of the answer's content: a flat object of strings, numbers, booleans and choices among strings. */
  schema: { type: 'object'; properties: Record<string, object>; required?: string[] };
}

/** `decline` is a clear no; `cancel` means that nobody decided. */
export type Answer =
  { action: 'accept'; content: Record<string, unknown> } | { action: 'decline' } | { action: 'cancel' };
