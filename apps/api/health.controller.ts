import { Controller, Get, ServiceUnavailableException } from '@nestjs/common';
import { Database } from '@longhaul/persistence';

/** A database that takes longer than this is as good as away. */
const DATABASE_MS = 3_000;

@Controller()
export class HealthController {
  constructor(private readonly db: Database) {}

  /** The process is alive; asks nobody else, so that a lost database does not get it restarted. */
  @Get('healthz')
  alive() {
    return { status: 'ok' };
  }

  /** It can do its work: the database answers. */
  @Get('readyz')
  async ready() {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('late')), DATABASE_MS);
    });
    try {
      await Promise.race([this.db.$queryRaw`SELECT 1`, late]);
      return { status: 'ready' };
    } catch {
      throw new ServiceUnavailableException({
        code: 'unavailable',
        message: 'The database does not answer.',
        retryable: true,
      });
    } finally {
      clearTimeout(timer);
    }
  }
}
