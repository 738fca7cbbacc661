// Lets a child process of a test run the sources as they are: node --import …/register-typescript.mjs file.ts
import { register } from 'node:module';
register('./typescript-hooks.mjs', import.meta.url);
