-- Every announcement sums up what its project keeps.
CREATE INDEX "artifacts_project_id_expires_at_idx" ON "artifacts"("project_id", "expires_at");
