-- CreateEnum
CREATE TYPE "job_state" AS ENUM ('queued', 'running', 'awaiting_input', 'succeeded', 'failed', 'timed_out', 'cancelled', 'unknown');

-- CreateTable
CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "email" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "projects" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "live_job_limit" INTEGER NOT NULL DEFAULT 1000,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "projects_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "project_members" (
    "project_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "role" TEXT NOT NULL,

    CONSTRAINT "project_members_pkey" PRIMARY KEY ("project_id","user_id")
);

-- CreateTable
CREATE TABLE "tokens" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "hash" BYTEA NOT NULL,
    "hint" TEXT NOT NULL,
    "scopes" TEXT[],
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),
    "last_used_at" TIMESTAMPTZ(3),

    CONSTRAINT "tokens_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "hosts" (
    "name" TEXT NOT NULL,
    "beat_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "hosts_pkey" PRIMARY KEY ("name")
);

-- CreateTable
CREATE TABLE "vms" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "hostname" TEXT NOT NULL,
    "provider" TEXT NOT NULL,
    "host" TEXT NOT NULL,
    "image" TEXT NOT NULL,
    "cpus" INTEGER NOT NULL,
    "memory_mb" INTEGER NOT NULL,
    "disk_gb" INTEGER NOT NULL,
    "exec_enabled" BOOLEAN NOT NULL DEFAULT false,
    "command_slots" INTEGER NOT NULL DEFAULT 1,
    "epoch" UUID,
    "power_state" TEXT NOT NULL DEFAULT 'unknown',
    "observed_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "vms_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "jobs" (
    "id" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "state" "job_state" NOT NULL DEFAULT 'queued',
    "project_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "token_id" UUID,
    "vm_id" UUID,
    "host" TEXT,
    "lane" TEXT NOT NULL,
    "scope" TEXT NOT NULL,
    "label" TEXT,
    "version" INTEGER NOT NULL DEFAULT 1,
    "payload" JSONB NOT NULL,
    "result" JSONB,
    "error" JSONB,
    "progress" JSONB,
    "checkpoint" JSONB,
    "slot" TEXT,
    "slot_index" INTEGER,
    "quarantined" BOOLEAN NOT NULL DEFAULT false,
    "attempt" INTEGER NOT NULL DEFAULT 0,
    "worker" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "run_seconds" INTEGER NOT NULL,
    "deadline_at" TIMESTAMPTZ(3) NOT NULL,
    "cancel_requested_at" TIMESTAMPTZ(3),
    "delivery" INTEGER NOT NULL DEFAULT 0,
    "redeliver_at" TIMESTAMPTZ(3),
    "idempotency_key" TEXT,
    "arguments_hash" BYTEA,
    "request_id" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "jobs_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "job_attempts" (
    "job_id" UUID NOT NULL,
    "attempt" INTEGER NOT NULL,
    "worker" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),
    "outcome" TEXT,

    CONSTRAINT "job_attempts_pkey" PRIMARY KEY ("job_id","attempt")
);

-- CreateTable
CREATE TABLE "job_intents" (
    "job_id" UUID NOT NULL,
    "what" TEXT NOT NULL,
    "attempt" INTEGER NOT NULL,
    "epoch" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "confirmed_at" TIMESTAMPTZ(3),

    CONSTRAINT "job_intents_pkey" PRIMARY KEY ("job_id","what")
);

-- CreateTable
CREATE TABLE "job_questions" (
    "job_id" UUID NOT NULL,
    "key" TEXT NOT NULL,
    "question" JSONB NOT NULL,
    "answer" JSONB,
    "answered_by" UUID,
    "asked_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "answered_at" TIMESTAMPTZ(3),

    CONSTRAINT "job_questions_pkey" PRIMARY KEY ("job_id","key")
);

-- CreateTable
CREATE TABLE "job_log_streams" (
    "job_id" UUID NOT NULL,
    "stream" TEXT NOT NULL,
    "size" BIGINT NOT NULL DEFAULT 0,
    "dropped" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "job_log_streams_pkey" PRIMARY KEY ("job_id","stream")
);

-- CreateTable
CREATE TABLE "job_log_chunks" (
    "job_id" UUID NOT NULL,
    "stream" TEXT NOT NULL,
    "offset" BIGINT NOT NULL,
    "data" BYTEA NOT NULL,

    CONSTRAINT "job_log_chunks_pkey" PRIMARY KEY ("job_id","stream","offset")
);

-- CreateTable
CREATE TABLE "audit_events" (
    "id" BIGSERIAL NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "event" TEXT NOT NULL,
    "user_id" UUID,
    "token_id" UUID,
    "project_id" UUID,
    "vm_id" UUID,
    "job_id" UUID,
    "tool" TEXT,
    "arguments" JSONB,
    "result" TEXT,
    "code" TEXT,
    "duration_ms" INTEGER,
    "request_id" TEXT,
    "client_name" TEXT,
    "client_version" TEXT,
    "ip" TEXT,
    "user_agent" TEXT,

    CONSTRAINT "audit_events_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");

-- CreateIndex
CREATE UNIQUE INDEX "projects_name_key" ON "projects"("name");

-- CreateIndex
CREATE INDEX "project_members_user_id_idx" ON "project_members"("user_id");

-- CreateIndex
CREATE UNIQUE INDEX "tokens_hash_key" ON "tokens"("hash");

-- CreateIndex
CREATE INDEX "tokens_user_id_idx" ON "tokens"("user_id");

-- CreateIndex
CREATE UNIQUE INDEX "vms_project_id_hostname_key" ON "vms"("project_id", "hostname");

-- CreateIndex
CREATE INDEX "jobs_project_id_created_at_id_idx" ON "jobs"("project_id", "created_at" DESC, "id");

-- CreateIndex
CREATE UNIQUE INDEX "jobs_user_id_idempotency_key_key" ON "jobs"("user_id", "idempotency_key");

-- CreateIndex
CREATE INDEX "audit_events_at_idx" ON "audit_events"("at");

-- CreateIndex
CREATE INDEX "audit_events_job_id_idx" ON "audit_events"("job_id");

-- AddForeignKey
ALTER TABLE "project_members" ADD CONSTRAINT "project_members_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "project_members" ADD CONSTRAINT "project_members_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "tokens" ADD CONSTRAINT "tokens_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "vms" ADD CONSTRAINT "vms_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "job_attempts" ADD CONSTRAINT "job_attempts_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "jobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "job_intents" ADD CONSTRAINT "job_intents_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "jobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "job_questions" ADD CONSTRAINT "job_questions_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "jobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- From here on: what the Prisma schema cannot say.

-- A slot of a VM belongs to the job that holds it: while the job lives, and while its fate in the guest is unresolved.
CREATE UNIQUE INDEX "jobs_vm_slot" ON "jobs" ("vm_id", "slot", "slot_index")
  WHERE "slot" IS NOT NULL AND ("state" IN ('queued', 'running', 'awaiting_input') OR "quarantined");

-- What recovery looks for on every sweep; each index holds live rows only, so sweeps cost nothing on a long history.
CREATE INDEX "jobs_lease" ON "jobs" ("lease_until") WHERE "state" = 'running';
CREATE INDEX "jobs_redelivery" ON "jobs" ("redeliver_at") WHERE "state" = 'queued';
CREATE INDEX "jobs_deadline" ON "jobs" ("deadline_at") WHERE "state" IN ('queued', 'running', 'awaiting_input');
CREATE INDEX "jobs_live_of_project" ON "jobs" ("project_id") WHERE "state" IN ('queued', 'running', 'awaiting_input');
CREATE INDEX "jobs_quarantined" ON "jobs" ("host") WHERE "quarantined";

ALTER TABLE "jobs" ADD CONSTRAINT "jobs_slot_complete" CHECK (("slot" IS NULL) = ("slot_index" IS NULL));

-- One place that guards the end of a job and tells listeners of its changes (never of a heartbeat).
CREATE FUNCTION "jobs_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD."state" IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'unknown') THEN
    RAISE EXCEPTION 'job % has ended as %', OLD."id", OLD."state" USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pg_notify('longhaul_jobs', NEW."id"::text);
  RETURN NEW;
END
$$;

CREATE TRIGGER "jobs_changed" BEFORE UPDATE ON "jobs" FOR EACH ROW
  WHEN (OLD."state" IS DISTINCT FROM NEW."state" OR OLD."cancel_requested_at" IS DISTINCT FROM NEW."cancel_requested_at")
  EXECUTE FUNCTION "jobs_changed"();

CREATE FUNCTION "audit_append_only"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit events are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER "audit_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON "audit_events"
  FOR EACH STATEMENT EXECUTE FUNCTION "audit_append_only"();

-- lz4 halves the size at little cost; not every build of PostgreSQL has it.
DO $$
BEGIN
  ALTER TABLE "job_log_chunks" ALTER COLUMN "data" SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
  NULL;
END
$$;
