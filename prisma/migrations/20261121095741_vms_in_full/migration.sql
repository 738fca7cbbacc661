-- CreateEnum
CREATE TYPE "artifact_purpose" AS ENUM ('config', 'script', 'file');

-- AlterTable
ALTER TABLE "vms" ADD COLUMN     "connection" JSONB,
ADD COLUMN     "credential" TEXT,
ADD COLUMN     "observed" JSONB;

-- CreateTable
CREATE TABLE "ssh_keys" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "public_key" TEXT NOT NULL,
    "fingerprint" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "ssh_keys_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts" (
    "id" UUID NOT NULL,
    "project_id" UUID NOT NULL,
    "vm_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "filename" TEXT NOT NULL,
    "purpose" "artifact_purpose" NOT NULL,
    "size_bytes" BIGINT NOT NULL,
    "sha256" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "upload_until" TIMESTAMPTZ(3) NOT NULL,
    "uploaded_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "artifacts_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "ssh_keys_user_id_fingerprint_key" ON "ssh_keys"("user_id", "fingerprint");

-- CreateIndex
CREATE UNIQUE INDEX "ssh_keys_user_id_name_key" ON "ssh_keys"("user_id", "name");

-- CreateIndex
CREATE INDEX "artifacts_vm_id_idx" ON "artifacts"("vm_id");

-- CreateIndex
CREATE INDEX "artifacts_expires_at_idx" ON "artifacts"("expires_at");

-- CreateIndex
CREATE INDEX "vms_host_idx" ON "vms"("host");

-- AddForeignKey
ALTER TABLE "ssh_keys" ADD CONSTRAINT "ssh_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "artifacts" ADD CONSTRAINT "artifacts_content" CHECK (size_bytes BETWEEN 0 AND 268435456 AND length(sha256) = 32);
