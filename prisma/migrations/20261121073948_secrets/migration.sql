-- AlterTable
ALTER TABLE "jobs" ADD COLUMN     "exec" BOOLEAN NOT NULL DEFAULT false;

-- AlterTable: keys were stored open. New ones are made; a confirmation that is open at that moment must be asked anew.
DELETE FROM "signing_keys";
ALTER TABLE "signing_keys" ALTER COLUMN "key" SET DATA TYPE TEXT USING '';

-- CreateTable
CREATE TABLE "one_time_secrets" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "secret" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "one_time_secrets_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE UNLOGGED TABLE "rate_limits" (
    "key" VARCHAR(255) NOT NULL,
    "points" INTEGER NOT NULL,
    "expire" BIGINT,

    CONSTRAINT "rate_limits_pkey" PRIMARY KEY ("key")
);

-- CreateIndex
CREATE INDEX "one_time_secrets_expires_at_idx" ON "one_time_secrets"("expires_at");


-- From here on: what the Prisma schema cannot say.

UPDATE "jobs" SET "exec" = true WHERE "kind" = 'vm.command' AND "state" IN ('queued', 'running', 'awaiting_input');
