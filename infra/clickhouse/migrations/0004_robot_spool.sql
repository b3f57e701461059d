-- What heartbeats of version 2 tell besides: null for robots that do not.
ALTER TABLE raw_robot_status ADD COLUMN IF NOT EXISTS spool_bytes Nullable(Int64);

ALTER TABLE raw_robot_status ADD COLUMN IF NOT EXISTS clock_offset_seconds Nullable(Float64);

ALTER TABLE raw_robot_status ADD COLUMN IF NOT EXISTS clock_offset_error_seconds Nullable(Float64);

CREATE OR REPLACE VIEW robot_status AS
SELECT * FROM raw_robot_status FINAL
ORDER BY robot_id, boot_epoch DESC, reported_at DESC
LIMIT 1 BY robot_id
COMMENT 'The newest heartbeat of each robot; the boot epoch counts before the clock, which may go back.';
