import { listSwitches, requireChange, requireOpen } from '@longhaul/access';
import { artifactExpired } from '@longhaul/artifacts';
import { parseId, type Artifact } from '@longhaul/persistence';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { notFound } from '../rest/fields.js';
import type { ArtifactServices } from './routes.js';

const query = z.strictObject({
  expires: z
    .string()
    .regex(/^\d{1,12}$/)
    .transform(Number),
  signature: z.string().regex(/^[\w-]{43}$/),
});

/**
 * The artifact that a signed address is about. Errors: `not_found`, the same for an artifact that does not exist and for a
 * signature that is not of this address; `artifact_expired`, which only who has a good signature learns.
 */
export async function admitRequest(
  method: 'GET' | 'PUT',
  request: FastifyRequest,
  { db, urls }: ArtifactServices,
): Promise<Artifact> {
  const id = parseId(String((request.params as { id?: string }).id));
  const asked = query.safeParse(request.query);
  const artifact = id && asked.success ? await db.artifact.findUnique({ where: { id } }) : undefined;
  if (!artifact || !asked.data) throw notFound();
  const { expires, signature } = asked.data;
  if (!(await urls.verify(method, artifact, expires, signature))) throw notFound();
  const now = await db.now();
  if (expires * 1000 <= now.getTime() || artifact.expiresAt <= now) throw artifactExpired();
  return artifact;
}

/**
 * Whoever was given the address may still change something in the project: its own time is no reason to let in whom we have shut
 * out meanwhile. Errors: `not_found`, those of requireOpen and requireChange, `rate_limited`.
 */
export async function requireUploader(
  { userId, projectId }: Artifact,
  { db, rates }: ArtifactServices,
): Promise<void> {
  const [member, switches] = await Promise.all([
    db.projectMember.findUnique({
      where: { projectId_userId: { projectId, userId } },
      include: { user: { select: { standing: true } } },
    }),
    listSwitches(db),
  ]);
  if (!member) throw notFound();
  const { standing } = member.user;
  const mcp = switches.find(({ name, engaged }) => name === 'mcp' && engaged);
  requireOpen({ standing, switches: mcp ? { mcp: mcp.reason ?? '' } : {} });
  requireChange({ standing, roles: { [projectId]: member.role } }, projectId);
  await rates.call({ userId });
}
