-- AlterTable
ALTER TABLE "jobs" ADD COLUMN     "archived_at" TIMESTAMPTZ(3);

-- AlterTable
ALTER TABLE "job_log_streams" ADD COLUMN     "archived" BIGINT NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "job_log_archives" (
    "id" UUID NOT NULL,
    "job_id" UUID NOT NULL,
    "stream" TEXT NOT NULL,
    "offset" BIGINT NOT NULL,
    "size" INTEGER NOT NULL,
    "frames" INTEGER[],

    CONSTRAINT "job_log_archives_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "job_log_archives_job_id_stream_offset_key" ON "job_log_archives"("job_id", "stream", "offset");

-- AddForeignKey
ALTER TABLE "job_log_archives" ADD CONSTRAINT "job_log_archives_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "jobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- From here on: what the Prisma schema cannot say.

-- What the archive has not looked at yet, the longest ended first.
CREATE INDEX "jobs_to_archive" ON "jobs" ("finished_at", "id") WHERE "finished_at" IS NOT NULL AND "archived_at" IS NULL;
