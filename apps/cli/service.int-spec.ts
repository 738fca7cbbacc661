import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTimeOf } from '@longhaul/persistence/embedded';
import { eventually } from '../../test/support/eventually.js';
import { readRecord } from './home.js';
import { endLeftover, Service } from './service.js';

const WELL_BEHAVED = `
  process.on('disconnect', () => process.exit());
  process.on('SIGTERM', () => { console.log('told to stop'); process.exit(); });
  process.send({ type: 'ready', port: 4711 });
`;

let directory: string;
let service: Service | undefined;
const said: string[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'longhaul-service-'));
  for (const name of ['run', 'log']) mkdirSync(join(directory, name));
  said.length = 0;
});

afterEach(async () => {
  await service?.stop(5_000);
  service = undefined;
  rmSync(directory, { recursive: true, force: true });
});

function makeService(script: string): Service {
  const main = join(directory, 'main.mjs');
  writeFileSync(main, script);
  service = new Service({ name: 'echo', main, env: {} }, { directory }, (message) => said.push(message));
  return service;
}

const pidFile = () => join(directory, 'run/echo.json');
const currentPid = () => readRecord(pidFile())?.pid ?? 0;
const log = () => readFileSync(join(directory, 'log/echo.log'), 'utf8');

describe('Service', () => {
  it('waits until the process is ready, and stops it in order', async () => {
    expect(await makeService(WELL_BEHAVED).start()).toBe(4711);
    const pid = currentPid();
    expect(startTimeOf(pid)).toBeDefined();
    await service?.stop(5_000);
    expect(startTimeOf(pid)).toBeUndefined();
    expect(log()).toContain('told to stop');
    expect(existsSync(pidFile())).toBe(false);
  });

  it('starts it again when it dies', async () => {
    await makeService(WELL_BEHAVED).start();
    const first = currentPid();
    process.kill(first, 'SIGKILL');
    const second = await eventually(() => (currentPid() === first ? undefined : currentPid()));
    expect(startTimeOf(second)).toBeDefined();
    expect(said).toEqual(['The echo ended; starting it again']);
  });

  it('makes one end that does not listen', async () => {
    await makeService(
      `process.on('SIGTERM', () => undefined); ${WELL_BEHAVED.replaceAll('process.exit()', '0')}`,
    ).start();
    const pid = currentPid();
    await service?.stop(100);
    expect(startTimeOf(pid)).toBeUndefined();
  });

  it('can be ended by the next start, even when it is stopped', async () => {
    await makeService(WELL_BEHAVED).start();
    const leftover = currentPid();
    process.kill(leftover, 'SIGSTOP');
    const stopped = service?.stop(600_000);
    await endLeftover({ directory }, 'echo');
    expect(startTimeOf(leftover)).toBeUndefined();
    await stopped;
  });

  it('says why one cannot be started', async () => {
    const failing = makeService(`console.error('DATABASE_URL: not set'); process.exit(3)`);
    await expect(failing.start()).rejects.toThrow(/The echo ended \(3\)[^]*DATABASE_URL: not set/);
  });
});
