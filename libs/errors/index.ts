export * from './catalogue.js';
export * from './app-error.js';
export { isAway } from './away.js';
export * from './redact.js';
