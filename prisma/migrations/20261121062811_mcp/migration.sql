-- CreateEnum
CREATE TYPE "confirmation_policy" AS ENUM ('any', 'person');

-- AlterTable
ALTER TABLE "projects" ADD COLUMN     "confirmation" "confirmation_policy" NOT NULL DEFAULT 'any';

-- AlterTable
ALTER TABLE "jobs" ADD COLUMN     "tool" TEXT,
ADD COLUMN     "traceparent" TEXT,
ADD COLUMN     "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP;

-- AlterTable
ALTER TABLE "audit_events" ADD COLUMN     "confirmed_by" TEXT,
ADD COLUMN     "trace_id" TEXT;

-- CreateTable
CREATE TABLE "signing_keys" (
    "name" TEXT NOT NULL,
    "key" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "signing_keys_pkey" PRIMARY KEY ("name")
);

-- CreateTable
CREATE TABLE "used_request_states" (
    "id" UUID NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "used_request_states_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "used_request_states_expires_at_idx" ON "used_request_states"("expires_at");

-- From here on: what the Prisma schema cannot say.

-- Listeners look again at whatever a notification names, be it a job, a VM or a token.
CREATE OR REPLACE FUNCTION "jobs_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD."state" IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'unknown') THEN
    RAISE EXCEPTION 'job % has ended as %', OLD."id", OLD."state" USING ERRCODE = 'check_violation';
  END IF;
  NEW."updated_at" := now();
  PERFORM pg_notify('longhaul_changes', NEW."id"::text);
  RETURN NEW;
END
$$;

CREATE FUNCTION "row_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('longhaul_changes', NEW."id"::text);
  RETURN NULL;
END
$$;

CREATE TRIGGER "vms_changed" AFTER UPDATE ON "vms" FOR EACH ROW
  WHEN (ROW(OLD."hostname", OLD."image", OLD."cpus", OLD."memory_mb", OLD."disk_gb", OLD."exec_enabled", OLD."power_state")
    IS DISTINCT FROM ROW(NEW."hostname", NEW."image", NEW."cpus", NEW."memory_mb", NEW."disk_gb", NEW."exec_enabled", NEW."power_state"))
  EXECUTE FUNCTION "row_changed"();

CREATE TRIGGER "tokens_changed" AFTER UPDATE ON "tokens" FOR EACH ROW
  WHEN (ROW(OLD."scopes", OLD."revoked_at", OLD."expires_at") IS DISTINCT FROM ROW(NEW."scopes", NEW."revoked_at", NEW."expires_at"))
  EXECUTE FUNCTION "row_changed"();

UPDATE "jobs" SET "updated_at" = coalesce("finished_at", "started_at", "created_at");
