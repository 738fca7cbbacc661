import { inputRequired } from '@modelcontextprotocol/server';
import { InputNeeded, answersTo, digestOf, requireStateOf, type Asking } from './input.js';

const name = inputRequired.elicit({
  message: 'Who?',
  requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] },
});
const client = (asking: Partial<Asking>): Asking => ({
  capabilities: { elicitation: {} },
  seal: async () => 'sealed',
  ...asking,
});
const ada = { action: 'accept', content: { name: 'Ada' } };

it('takes an answer of the form that was asked for', () => {
  expect(answersTo({ who: name }, client({ responses: { who: ada, other: 1 } }))).toEqual({ who: ada });
});

it.each([
  ['nothing', undefined],
  ['another key', { other: ada }],
  ['content of another form', { who: { action: 'accept', content: { name: 7 } } }],
  ['no content', { who: { action: 'accept' } }],
  ['another sort of answer', { who: { roots: [] } }],
  ['no object', { who: 'Ada' }],
])('asks again when the client sends %s', (_what, responses) => {
  expect(() => answersTo({ who: name }, client({ responses }))).toThrow(InputNeeded);
});

it.each(['decline', 'cancel'])('takes a %s for an answer', (action) => {
  expect(answersTo({ who: name }, client({ responses: { who: { action } } }))).toEqual({ who: { action } });
});

it('keeps what earlier rounds have answered, and asks only for the rest', () => {
  const state = { id: 'x', digest: 'd', expiresAt: 0, answers: { who: ada } };
  const again = () => answersTo({ who: name, second: name }, client({ state, responses: {} }));
  expect(again).toThrow(expect.objectContaining({ requests: { second: name }, answers: { who: ada } }));
  const later = client({ state, responses: { who: { action: 'decline' }, second: ada } });
  expect(answersTo({ who: name, second: name }, later)).toEqual({ who: ada, second: ada });
});

it('keeps what was answered before the next question of the same round', () => {
  const asking = client({ responses: { who: ada } });
  answersTo({ who: name }, asking);
  expect(() => answersTo({ second: name }, asking)).toThrow(
    expect.objectContaining({ answers: { who: ada } }),
  );
});

it('binds what travels through the client to one call', () => {
  const digest = digestOf('reinstall', { vm_id: 'a' });
  const state = { id: 'x', digest, expiresAt: 0, answers: {} };
  expect(() => requireStateOf(digest, client({ state }))).not.toThrow();
  expect(() => requireStateOf(digestOf('reinstall', { vm_id: 'b' }), client({ state }))).toThrow(
    expect.objectContaining({ code: 'request_state_invalid' }),
  );
});
