-- CreateEnum
CREATE TYPE "account_standing" AS ENUM ('good', 'flagged', 'suspended');

-- CreateEnum
CREATE TYPE "project_role" AS ENUM ('owner', 'admin', 'member', 'viewer');

-- AlterTable
ALTER TABLE "users" ADD COLUMN     "password_hash" TEXT,
ADD COLUMN     "staff" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "standing" "account_standing" NOT NULL DEFAULT 'good';

-- AlterTable
ALTER TABLE "projects" ADD COLUMN     "customer" TEXT;

-- AlterTable
ALTER TABLE "project_members" ALTER COLUMN "role" TYPE "project_role" USING "role"::"project_role";

-- AlterTable
ALTER TABLE "tokens" ADD COLUMN     "name" TEXT,
ADD COLUMN     "project_ids" UUID[] NOT NULL DEFAULT ARRAY[]::UUID[],
ADD COLUMN     "vm_ids" UUID[] NOT NULL DEFAULT ARRAY[]::UUID[];

-- AlterTable
ALTER TABLE "vms" ADD COLUMN     "exec_suspended" BOOLEAN NOT NULL DEFAULT false;

-- CreateTable
CREATE TABLE "identities" (
    "issuer" TEXT NOT NULL,
    "subject" TEXT NOT NULL,
    "user_id" UUID NOT NULL,

    CONSTRAINT "identities_pkey" PRIMARY KEY ("issuer","subject")
);

-- CreateTable
CREATE TABLE "oauth_grants" (
    "id" TEXT NOT NULL,
    "user_id" UUID NOT NULL,
    "client_id" TEXT NOT NULL,
    "client_name" TEXT,
    "scopes" TEXT[] NOT NULL,
    "project_ids" UUID[] NOT NULL DEFAULT ARRAY[]::UUID[],
    "vm_ids" UUID[] NOT NULL DEFAULT ARRAY[]::UUID[],
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_used_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),

    CONSTRAINT "oauth_grants_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "oauth_state" (
    "model" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "payload" JSONB NOT NULL,
    "grant_id" TEXT,
    "uid" TEXT,
    "user_code" TEXT,
    "consumed_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),

    CONSTRAINT "oauth_state_pkey" PRIMARY KEY ("model","id")
);

-- CreateTable
CREATE TABLE "kill_switches" (
    "name" TEXT NOT NULL,
    "engaged" BOOLEAN NOT NULL,
    "reason" TEXT,
    "actor" TEXT NOT NULL,
    "changed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "kill_switches_pkey" PRIMARY KEY ("name")
);

-- CreateIndex
CREATE INDEX "identities_user_id_idx" ON "identities"("user_id");

-- CreateIndex
CREATE INDEX "oauth_grants_user_id_idx" ON "oauth_grants"("user_id");

-- CreateIndex
CREATE INDEX "oauth_state_grant_id_idx" ON "oauth_state"("grant_id");

-- CreateIndex
CREATE INDEX "oauth_state_model_uid_idx" ON "oauth_state"("model", "uid");

-- CreateIndex
CREATE INDEX "oauth_state_expires_at_idx" ON "oauth_state"("expires_at");

-- AddForeignKey
ALTER TABLE "identities" ADD CONSTRAINT "identities_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "oauth_grants" ADD CONSTRAINT "oauth_grants_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;


-- From here on: what the Prisma schema cannot say.

-- Streams that live longer than a request look again at who they are for.
CREATE TRIGGER "oauth_grants_changed" AFTER UPDATE ON "oauth_grants" FOR EACH ROW
  WHEN (ROW(OLD."scopes", OLD."revoked_at") IS DISTINCT FROM ROW(NEW."scopes", NEW."revoked_at"))
  EXECUTE FUNCTION "row_changed"();
