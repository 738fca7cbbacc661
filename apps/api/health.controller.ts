import { Controller, Get, HttpStatus, Res } from '@nestjs/common';
import { Readiness } from '@longhaul/telemetry';
import type { FastifyReply } from 'fastify';

/** For probes that only reach the public port. They answer under any Host, as probes name the address that they found. */
@Controller()
export class HealthController {
  constructor(private readonly readiness: Readiness) {}

  @Get('ping')
  ping() {
    return 'pong';
  }

  /** The process is alive; asks nobody else, so that a lost database does not get it restarted. */
  @Get('healthz')
  alive() {
    return { status: 'ok' };
  }

  /** It can do its work: all that it needs answers. */
  @Get('readyz')
  async ready(@Res({ passthrough: true }) reply: FastifyReply) {
    const verdict = await this.readiness.verdict();
    if (verdict.status !== 'ready') reply.code(HttpStatus.SERVICE_UNAVAILABLE);
    return verdict;
  }
}
