import { getPrompt, listedPrompt, type PromptDefinition } from './prompt.js';

const prompt: PromptDefinition = {
  name: 'greet',
  title: 'Greet',
  description: 'Greets',
  arguments: { who: 'Somebody' },
  text: ({ who }) => `Greet ${who}.`,
};

it('lists its arguments and fills them in', () => {
  expect(listedPrompt(prompt).arguments).toEqual([{ name: 'who', description: 'Somebody', required: true }]);
  expect(getPrompt([prompt], 'greet', { who: 'Ada' }).messages[0]?.content).toEqual({
    type: 'text',
    text: 'Greet Ada.',
  });
});

it.each([
  ['an unknown prompt', 'other', { who: 'Ada' }],
  ['a missing argument', 'greet', {}],
  ['an empty one', 'greet', { who: '' }],
  ['an unknown one', 'greet', { who: 'Ada', toString: 'x' }],
  ['one that is too long', 'greet', { who: 'x'.repeat(4097) }],
])('refuses %s', (_what, name, args) => {
  expect(() => getPrompt([prompt], name, args)).toThrow(expect.objectContaining({ code: -32602 }));
});
