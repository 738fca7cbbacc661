-- The project of jobs that Longhaul gives itself (SYSTEM_ID in libs/persistence/ids.ts). The user of these jobs has the same id
-- and no row, so that nobody can log in as them.
INSERT INTO "projects" ("id", "name") VALUES ('00000000-0000-0000-0000-000000000000', 'Longhaul itself');
ALTER TABLE "project_members" ADD CONSTRAINT "project_members_not_of_system" CHECK ("project_id" <> '00000000-0000-0000-0000-000000000000');
ALTER TABLE "users" ADD CONSTRAINT "users_not_system" CHECK ("id" <> '00000000-0000-0000-0000-000000000000');
