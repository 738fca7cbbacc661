import { auditConfig, dropExpired, verifyAudit, type Finding } from '@longhaul/audit';
import { parseConfig } from '@longhaul/config';
import type { Command } from './commands.js';
import { UsageError } from './usage.js';

/** Findings that are shown one by one. */
const SHOWN = 1_000;

export const auditCommands: Record<string, Command> = {
  'audit verify': {
    args: [],
    options: ['since', 'head'],
    async run({ db }, _args, { since, head }) {
      let found = 0;
      const show = (finding: Finding) => {
        if (++found <= SHOWN) console.log(inWords(finding));
      };
      const options = { since: since ? dateOf(since) : undefined, head: head ? headOf(head) : undefined };
      const result = await verifyAudit(db, options, show);
      console.log(
        `${result.seals} seals, ${result.events} events as they were sealed, ${result.dropped} dropped by retention, ` +
          `${result.unsealed} not sealed yet.\nEnd of the chain: ${result.head.number}:${result.head.digest}`,
      );
      if (found > 0) throw new UsageError(`The audit was tampered with: ${found} findings.`);
    },
  },

  'audit expire': {
    args: [],
    async run({ db }) {
      const dropped = await dropExpired(db, parseConfig(auditConfig).AUDIT_RETENTION_DAYS);
      console.log(dropped.length > 0 ? `Dropped: ${dropped.join(', ')}` : 'Nothing is old enough.');
    },
  },
};

function inWords({ what, seal, eventId, at, detail }: Finding): string {
  if (eventId === undefined) return `${what}: seal ${seal} ${detail}`;
  return `${what}: event ${eventId} of ${at!.toISOString()}, in seal ${seal}, ${detail}`;
}

function dateOf(text: string): Date {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) throw new UsageError(`Not a date: ${text}. Write it as 2026-01-31.`);
  return date;
}

function headOf(text: string): { number: bigint; digest: string } {
  const [, number, digest] = /^(\d{1,18}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (!number || !digest) throw new UsageError('--head takes an end of the chain, as verify prints it.');
  return { number: BigInt(number), digest };
}
