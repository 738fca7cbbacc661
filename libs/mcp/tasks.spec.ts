import type { Job } from '@longhaul/persistence';
import { statusOf, taskOf } from './tasks.js';

const job = (values: Partial<Job>): Job =>
  ({
    id: 'j',
    state: 'running',
    error: null,
    progress: null,
    cancelRequestedAt: null,
    createdAt: new Date(),
    updatedAt: new Date(),
    ...values,
  }) as Job;

const error = (code: string) => ({ code, message: 'It broke.', retryable: false });

it.each([
  [{ state: 'queued' }, 'working'],
  [{ state: 'running' }, 'working'],
  [{ state: 'awaiting_input' }, 'input_required'],
  [{ state: 'succeeded' }, 'completed'],
  [{ state: 'failed' }, 'completed'],
  [{ state: 'failed', error: error('guest_unreachable') }, 'completed'],
  [{ state: 'failed', error: error('internal') }, 'failed'],
  [{ state: 'timed_out' }, 'completed'],
  [{ state: 'unknown', error: error('outcome_unknown') }, 'completed'],
  [{ state: 'cancelled' }, 'cancelled'],
] as [Partial<Job>, string][])('shows a job %j as %s', (values, status) => {
  expect(statusOf(job(values))).toBe(status);
});

it('asks to be polled often while it is young, and seldom once it is old', () => {
  const pollAfter = (ageMs: number) =>
    taskOf(job({ createdAt: new Date(Date.now() - ageMs) }), 1_000).pollIntervalMs;
  expect(pollAfter(0)).toBe(250);
  expect(pollAfter(20_000)).toBeGreaterThanOrEqual(2_000);
  expect(pollAfter(20_000)).toBeLessThan(5_000);
  expect(pollAfter(3_600_000)).toBe(10_000);
  expect(Number.isInteger(pollAfter(12_345))).toBe(true);
});

it('says how far the job is', () => {
  const message = (values: Partial<Job>) => taskOf(job(values), 1_000).statusMessage;
  expect(message({ progress: { progress: 3, total: 10 } })).toBe('3 of 10');
  expect(message({ progress: { progress: 3, message: '3 s, 12 kB of output' } })).toBe(
    '3 s, 12 kB of output',
  );
  expect(message({ state: 'queued' })).toBe('Waiting for a worker');
  expect(message({ state: 'failed', error: error('queue_timeout') })).toBe('It broke.');
});
