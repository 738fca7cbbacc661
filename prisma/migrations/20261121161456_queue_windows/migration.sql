-- CreateEnum
CREATE TYPE "queue_place" AS ENUM ('window', 'held', 'postponed');

-- AlterTable
ALTER TABLE "projects" ADD COLUMN     "concurrency" INTEGER NOT NULL DEFAULT 50;

-- AlterTable
ALTER TABLE "jobs" ADD COLUMN     "place" "queue_place" NOT NULL DEFAULT 'window',
ADD COLUMN     "priority" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "queue" TEXT NOT NULL GENERATED ALWAYS AS ("lane" || '.' || coalesce("host", 'shared')) STORED;


-- From here on: what the Prisma schema cannot say.

ALTER TABLE "projects" ADD CONSTRAINT "projects_concurrency" CHECK ("concurrency" BETWEEN 1 AND 10000);

-- What submitting and ending jobs looks up: who is in a project's window, and who is next.
CREATE INDEX "jobs_window" ON "jobs" ("project_id", "queue") WHERE "place" = 'window' AND "state" IN ('queued', 'running');
CREATE INDEX "jobs_held" ON "jobs" ("project_id", "queue", "created_at", "id") WHERE "place" = 'held' AND "state" = 'queued';

-- Those held back are not for recovery's sweeps.
DROP INDEX "jobs_redelivery";
CREATE INDEX "jobs_redelivery" ON "jobs" ("redeliver_at") WHERE "state" = 'queued' AND "redeliver_at" IS NOT NULL;
