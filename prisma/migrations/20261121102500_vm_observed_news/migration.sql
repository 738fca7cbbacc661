-- Listeners of a VM hear of what workers see in it, not of when they saw it.
DROP TRIGGER "vms_changed" ON "vms";

CREATE TRIGGER "vms_changed" AFTER UPDATE ON "vms" FOR EACH ROW
  WHEN (ROW(OLD."hostname", OLD."image", OLD."cpus", OLD."memory_mb", OLD."disk_gb", OLD."exec_enabled", OLD."power_state",
      OLD."observed" - '{agent_seen_at,agent_asked_at,disk_seen_at}'::text[])
    IS DISTINCT FROM ROW(NEW."hostname", NEW."image", NEW."cpus", NEW."memory_mb", NEW."disk_gb", NEW."exec_enabled",
      NEW."power_state", NEW."observed" - '{agent_seen_at,agent_asked_at,disk_seen_at}'::text[]))
  EXECUTE FUNCTION "row_changed"();
