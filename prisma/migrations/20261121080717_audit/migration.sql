-- The audit becomes partitioned by month; what is there already moves along. Other than Prisma writes it, as it cannot say
-- partitions, partial indexes, triggers and roles.

-- Asking for the transaction's number first means: who holds an id of an event has a number already. The sealer counts on it.
ALTER TABLE "audit_events" RENAME TO "audit_events_before";
ALTER TABLE "audit_events_before" DROP CONSTRAINT "audit_events_pkey";
DROP INDEX "audit_events_at_idx", "audit_events_job_id_idx";
ALTER SEQUENCE "audit_events_id_seq" OWNED BY NONE;

CREATE TABLE "audit_events" (
    "id" BIGINT NOT NULL DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('audit_events_id_seq') END,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "event" TEXT NOT NULL,
    "user_id" UUID,
    "token_id" UUID,
    "client_id" TEXT,
    "project_id" UUID,
    "customer" TEXT,
    "vm_id" UUID,
    "job_id" UUID,
    "tool" TEXT,
    "arguments" JSONB,
    "result" TEXT,
    "code" TEXT,
    "duration_ms" INTEGER,
    "request_id" TEXT,
    "trace_id" TEXT,
    "confirmed_by" TEXT,
    "client_name" TEXT,
    "client_version" TEXT,
    "ip" TEXT,
    "user_agent" TEXT,

    CONSTRAINT "audit_events_pkey" PRIMARY KEY ("id", "at")
) PARTITION BY RANGE ("at");
ALTER SEQUENCE "audit_events_id_seq" OWNED BY "audit_events"."id";

-- Newest first, of everything or of one value. What nearly all events have (a call, its result `ok`) is not worth an index.
CREATE INDEX "audit_events_at_id_idx" ON "audit_events" ("at", "id");
CREATE INDEX "audit_events_user_idx" ON "audit_events" ("user_id", "at", "id") WHERE "user_id" IS NOT NULL;
CREATE INDEX "audit_events_token_idx" ON "audit_events" ("token_id", "at", "id") WHERE "token_id" IS NOT NULL;
CREATE INDEX "audit_events_client_idx" ON "audit_events" ("client_id", "at", "id") WHERE "client_id" IS NOT NULL;
CREATE INDEX "audit_events_project_idx" ON "audit_events" ("project_id", "at", "id") WHERE "project_id" IS NOT NULL;
CREATE INDEX "audit_events_customer_idx" ON "audit_events" ("customer", "at", "id") WHERE "customer" IS NOT NULL;
CREATE INDEX "audit_events_vm_idx" ON "audit_events" ("vm_id", "at", "id") WHERE "vm_id" IS NOT NULL;
CREATE INDEX "audit_events_job_idx" ON "audit_events" ("job_id", "at", "id") WHERE "job_id" IS NOT NULL;
CREATE INDEX "audit_events_tool_idx" ON "audit_events" ("tool", "at", "id") WHERE "tool" IS NOT NULL;
CREATE INDEX "audit_events_result_idx" ON "audit_events" ("result", "at", "id") WHERE "result" <> 'ok';
CREATE INDEX "audit_events_code_idx" ON "audit_events" ("code", "at", "id") WHERE "code" IS NOT NULL;
CREATE INDEX "audit_events_ip_idx" ON "audit_events" ("ip", "at", "id") WHERE "ip" IS NOT NULL;
CREATE INDEX "audit_events_request_idx" ON "audit_events" ("request_id", "at", "id") WHERE "request_id" IS NOT NULL;
CREATE INDEX "audit_events_trace_idx" ON "audit_events" ("trace_id", "at", "id") WHERE "trace_id" IS NOT NULL;
CREATE INDEX "audit_events_event_idx" ON "audit_events" ("event", "at", "id") WHERE "event" <> 'call';

CREATE TABLE "audit_words" (
    "id" BIGINT NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL,
    "words" tsvector NOT NULL,

    CONSTRAINT "audit_words_pkey" PRIMARY KEY ("at", "id")
) PARTITION BY RANGE ("at");
CREATE INDEX "audit_words_words_idx" ON "audit_words" USING GIN ("words");

CREATE TABLE "audit_seals" (
    "number" BIGINT NOT NULL,
    "sealed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "after_id" BIGINT NOT NULL,
    "last_id" BIGINT NOT NULL,
    "count" INTEGER NOT NULL,
    "entries" BYTEA NOT NULL,
    "dropped_from" TIMESTAMPTZ(3),
    "dropped_to" TIMESTAMPTZ(3),
    "previous" BYTEA NOT NULL,
    "digest" BYTEA NOT NULL,

    CONSTRAINT "audit_seals_pkey" PRIMARY KEY ("number")
);
-- Hashes do not compress.
ALTER TABLE "audit_seals" ALTER COLUMN "entries" SET STORAGE EXTERNAL;

CREATE TABLE "audit_mark" (
    "only" BOOLEAN NOT NULL DEFAULT true CHECK ("only"),
    "last_id" BIGINT NOT NULL,
    "xid" BIGINT NOT NULL,

    CONSTRAINT "audit_mark_pkey" PRIMARY KEY ("only")
);
INSERT INTO "audit_mark" ("last_id", "xid") VALUES (0, 0);

-- Addresses, paths and names are taken apart, so that each of their words is found.
CREATE FUNCTION "audit_words_of"("tool" text, "user_agent" text, "arguments" jsonb) RETURNS tsvector
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN to_tsvector('pg_catalog.simple', translate(
    coalesce("tool", '') || ' ' || coalesce("user_agent", '') || ' ' || coalesce("arguments"::text, ''),
    './_-@:\"{}[],=+<>&', '                  '));

-- Statement triggers are not inherited, and hold whatever session_replication_role says.
CREATE FUNCTION "audit_guard"("part" text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER "audit_append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
    FOR EACH STATEMENT EXECUTE FUNCTION "audit_append_only"()', "part");
  EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER "audit_append_only"', "part");
  -- Default privileges would give it what the parent does not.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'longhaul_app') THEN
    EXECUTE format('REVOKE ALL ON %I FROM longhaul_app', "part");
  END IF;
END
$$;

-- Of the month that begins at `month`, in UTC. Attached, as that locks out nobody who writes.
CREATE FUNCTION "audit_make_partition"("month" timestamp) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  "parent" text;
  "part" text;
BEGIN
  FOREACH "parent" IN ARRAY ARRAY['audit_events', 'audit_words'] LOOP
    "part" := "parent" || to_char("month", '_YYYY_MM');
    CONTINUE WHEN to_regclass("part") IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', "part", "parent");
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', "parent", "part",
        "month" || '+00', "month" + interval '1 month' || '+00');
      PERFORM "audit_guard"("part");
    EXCEPTION WHEN check_violation THEN
      NULL; -- Nobody made it in time: the events of that month are in the default partition, and stay there.
    END;
  END LOOP;
END
$$;

-- This month and the next three. Whoever may write the audit may call it, with the rights of the tables' owner.
CREATE FUNCTION "audit_make_partitions"() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  "month" timestamp;
BEGIN
  -- Partitions are made by one at a time, and a reader who holds it up is not waited for: there is time until next month.
  IF NOT pg_try_advisory_xact_lock(5641720114) THEN RETURN; END IF;
  SET LOCAL lock_timeout = '2s';
  FOR "month" IN SELECT generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'),
    now() AT TIME ZONE 'UTC' + interval '3 months', interval '1 month') LOOP
    PERFORM "audit_make_partition"("month");
  END LOOP;
END
$$;

-- A caller's own tables must not pass for ours.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION "audit_make_partitions"() SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE ALL ON FUNCTION "audit_make_partitions"() FROM PUBLIC;

CREATE TABLE "audit_events_default" PARTITION OF "audit_events" DEFAULT;
CREATE TABLE "audit_words_default" PARTITION OF "audit_words" DEFAULT;
SELECT "audit_guard"("name") FROM unnest(ARRAY['audit_events', 'audit_events_default', 'audit_words',
  'audit_words_default', 'audit_seals']) AS "name";

SELECT "audit_make_partition"("month")
FROM generate_series((SELECT date_trunc('month', min("at") AT TIME ZONE 'UTC') FROM "audit_events_before"),
  now() AT TIME ZONE 'UTC', interval '1 month') AS "month";
SELECT "audit_make_partitions"();

INSERT INTO "audit_events" ("id", "at", "event", "user_id", "token_id", "project_id", "customer", "vm_id", "job_id", "tool",
  "arguments", "result", "code", "duration_ms", "request_id", "trace_id", "confirmed_by", "client_name", "client_version",
  "ip", "user_agent")
SELECT "id", "at", "event", "user_id", "token_id", "project_id",
  (SELECT "customer" FROM "projects" WHERE "projects"."id" = "project_id"), "vm_id", "job_id", "tool",
  "arguments", "result", "code", "duration_ms", "request_id", "trace_id", "confirmed_by", "client_name", "client_version",
  "ip", "user_agent"
FROM "audit_events_before";
DROP TABLE "audit_events_before";

-- For logins of the API and the workers: all but changing the audit. It belongs to the server, not to this database.
DO $$
DECLARE
  "schema" text := quote_ident(current_schema());
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'longhaul_app') THEN
    BEGIN
      CREATE ROLE longhaul_app NOLOGIN;
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RAISE NOTICE 'The role longhaul_app is missing and may not be made here; see docs/operations.md.';
        RETURN;
    END;
  END IF;
  EXECUTE 'GRANT USAGE ON SCHEMA ' || "schema" || ' TO longhaul_app';
  EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ' || "schema" || ' TO longhaul_app';
  EXECUTE 'GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA ' || "schema" || ' TO longhaul_app';
  EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA ' || "schema" || '
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO longhaul_app';
  EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA ' || "schema" || ' GRANT USAGE, SELECT ON SEQUENCES TO longhaul_app';
  EXECUTE (SELECT 'REVOKE ALL ON ' || string_agg(quote_ident(relname), ', ') || ' FROM longhaul_app' FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
      AND (relname LIKE 'audit\_events%' OR relname LIKE 'audit\_words%' OR relname IN ('audit_seals', '_prisma_migrations')));
  -- Neither when nor in which order: those are the database's.
  EXECUTE (SELECT 'GRANT SELECT, INSERT (' || string_agg(quote_ident(attname), ', ') || ') ON "audit_events" TO longhaul_app'
    FROM pg_attribute WHERE attrelid = '"audit_events"'::regclass AND attnum > 0 AND attname NOT IN ('id', 'at'));
  GRANT SELECT, INSERT ON "audit_words", "audit_seals" TO longhaul_app;
  GRANT EXECUTE ON FUNCTION "audit_make_partitions"() TO longhaul_app;
END
$$;
