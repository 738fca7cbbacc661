import { All, Controller, Req, Res } from '@nestjs/common';
import { toAppError } from '@longhaul/errors';
import { McpEndpoint, type Selection } from '@longhaul/mcp';
import { Oauth } from '@longhaul/oauth';
import { parseTraceparent } from '@longhaul/telemetry';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { parseJson } from './body.js';

/** JSON-RPC's own answer to a body that it cannot read. */
const PARSE_ERROR = {
  jsonrpc: '2.0',
  id: null,
  error: {
    code: -32700,
    message: 'Parse error: the body must be JSON in UTF-8, nested no deeper than a tool needs.',
    data: { code: 'invalid_arguments' },
  },
};

interface McpRoute {
  Body: Buffer | undefined;
  Params: { toolsets?: string };
  Querystring: Record<string, unknown>;
}

@Controller()
export class McpController {
  constructor(
    private readonly endpoint: McpEndpoint,
    private readonly oauth: Oauth,
  ) {}

  /** Hands the request to the MCP handler, which writes to the socket itself: answers may be streams. */
  @All(['mcp', 'mcp/readonly', 'mcp/x/:toolsets', 'mcp/x/:toolsets/readonly'])
  async handle(@Req() request: FastifyRequest<McpRoute>, @Res() reply: FastifyReply) {
    const { raw, id, ip, headers, caller } = request;
    let selection: Selection;
    try {
      selection = this.select(request);
    } catch (thrown) {
      return reply.code(400).send(toAppError(thrown).toBody());
    }
    const parsed = request.body && parseJson(request.body);
    if (request.body && !parsed) return reply.code(400).send(PARSE_ERROR);
    // An answer may be a stream for hours; the bytes that asked for it need not stay as long.
    request.body = undefined;
    reply.hijack();
    reply.raw.setHeader('x-request-id', id);
    await this.endpoint.handle(raw, reply.raw, parsed?.value, {
      caller: caller!,
      selection,
      requestId: id,
      traceparent: parseTraceparent(headers.traceparent),
      ip,
      userAgent: headers['user-agent'],
      ...(caller!.kind === 'oauth' && {
        challenge: (scopes) => this.oauth.challenge('insufficient_scope', scopes),
      }),
    });
  }

  private select({ params, query, headers, routeOptions }: FastifyRequest<McpRoute>): Selection {
    const readOnly = routeOptions.url?.endsWith('/readonly');
    return this.endpoint.select({ path: { toolsets: params.toolsets, readOnly }, query, headers });
  }
}
