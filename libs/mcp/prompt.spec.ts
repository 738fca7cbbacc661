import { getPrompt, listedPrompt, type PromptDefinition } from './prompt.js';

const prompt: PromptDefinition = {
  name: 'greet',
  title: 'Greet',
  description: 'Greets',
  arguments: { who: 'Somebody' },
  messages: ({ who }) => `Greet ${who}.`,
};

it('lists its arguments and fills them in', async () => {
  expect(listedPrompt(prompt).arguments).toEqual([{ name: 'who', description: 'Somebody', required: true }]);
  expect(await getPrompt([prompt], 'greet', { who: 'Ada' })).toMatchObject({
    messages: [{ role: 'user', content: { type: 'text', text: 'Greet Ada.' } }],
  });
});

it.each([
  ['an unknown prompt', 'other', { who: 'Ada' }],
  ['a missing argument', 'greet', {}],
  ['an empty one', 'greet', { who: '' }],
  ['an unknown one', 'greet', { who: 'Ada', toString: 'x' }],
  ['one that is too long', 'greet', { who: 'x'.repeat(4097) }],
])('refuses %s', async (_what, name, args) => {
  await expect(getPrompt([prompt], name, args)).rejects.toMatchObject({ code: -32602 });
});
