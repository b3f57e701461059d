-- What heartbeats of version 3 tell besides: null for robots that do not.
ALTER TABLE raw_robot_status ADD COLUMN IF NOT EXISTS policy_wanted Nullable(Int64);

ALTER TABLE raw_robot_status ADD COLUMN IF NOT EXISTS frames_dropped Nullable(Int64);

CREATE OR REPLACE VIEW robot_status
(
    robot_id LowCardinality(String) COMMENT 'Robot.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When it said so, by its clock.',
    spool_depth Int64 COMMENT 'Events recorded and not yet acknowledged by Kafka.',
    spool_age_seconds Float64 COMMENT 'Age of the oldest of them.',
    policy LowCardinality(String) COMMENT 'Policy line that it follows; empty for none.',
    policy_version Int64 COMMENT 'Active version; 0 for none.',
    episodes_ended Int64 COMMENT 'Episodes that this boot has ended.',
    errors Array(String) COMMENT 'What is wrong now, in words.',
    simulated_seconds Nullable(Float64) COMMENT 'Its simulated clock, where time is simulated.',
    waiting Bool COMMENT 'Whether it holds still at a boundary of simulated time.',
    spool_bytes Nullable(Int64) COMMENT 'Size of its spool on disk; NULL when it does not say.',
    clock_offset_seconds Nullable(Float64) COMMENT 'The broker''s clock minus its own; NULL when unknown.',
    clock_offset_error_seconds Nullable(Float64) COMMENT 'How far that may be off.',
    policy_wanted Nullable(Int64) COMMENT 'Version that it is to run, as far as it knows; NULL when it follows none.',
    frames_dropped Nullable(Int64) COMMENT 'Camera frames that this boot dropped under pressure; NULL when it records none.'
) AS
SELECT * FROM raw_robot_status FINAL
ORDER BY robot_id, boot_epoch DESC, reported_at DESC
LIMIT 1 BY robot_id
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'The newest heartbeat of each robot; the boot epoch counts before the clock, which may go back.';
