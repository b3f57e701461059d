-- A robot's clock may say 1970, or next year. When its heartbeat came, by the broker's clock, decides how long it is
-- kept, whether the robot is there, and what a look at the last hours finds. Rows from before have only the robot's word.
ALTER TABLE raw_robot_status
    ADD COLUMN IF NOT EXISTS received_at DateTime64(3, 'UTC') DEFAULT reported_at CODEC(Delta, ZSTD(1)) AFTER reported_at,
    ADD COLUMN IF NOT EXISTS received_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(received_at) CODEC(Delta, ZSTD(1));

ALTER TABLE raw_robot_status ADD INDEX IF NOT EXISTS by_received_hour received_hour TYPE minmax GRANULARITY 1;
ALTER TABLE raw_robot_status MATERIALIZE INDEX by_received_hour;

-- Rows that are there keep their times: both are the same for them.
ALTER TABLE raw_robot_status MODIFY TTL toDateTime(received_at) + INTERVAL 30 DAY SETTINGS materialize_ttl_after_modify = 0;

-- One row for each start of a robot's client: dashboards ask every few seconds for the newest heartbeat, and a robot has
-- two and a half million of them. min and max are the same however often a row is inserted, so that this table, unlike
-- a sum, may be fed by one that is written at least once. `newest` is the largest tuple: the one that came last.
CREATE TABLE IF NOT EXISTS raw_robot_boots
(
    robot_id LowCardinality(String),
    boot_epoch Int64,
    first_received_at SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    received_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    newest SimpleAggregateFunction(max, Tuple(
        received_at DateTime64(3, 'UTC'),
        reported_at DateTime64(6, 'UTC'),
        spool_depth Int64,
        spool_age_seconds Float64,
        policy String,
        policy_version Int64,
        episodes_ended Int64,
        errors Array(String),
        simulated_seconds Nullable(Float64),
        waiting Bool,
        spool_bytes Nullable(Int64),
        clock_offset_seconds Nullable(Float64),
        clock_offset_error_seconds Nullable(Float64),
        policy_wanted Nullable(Int64),
        frames_dropped Nullable(Int64)))
)
ENGINE = AggregatingMergeTree
ORDER BY (robot_id, boot_epoch)
TTL toDateTime(received_at) + INTERVAL 30 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS robot_boots_feed TO raw_robot_boots AS
SELECT robot_id, boot_epoch, min(beat.received_at) AS first_received_at, max(beat.received_at) AS received_at,
    max((beat.received_at, beat.reported_at, beat.spool_depth, beat.spool_age_seconds, toString(beat.policy),
        beat.policy_version, beat.episodes_ended, beat.errors, beat.simulated_seconds, beat.waiting, beat.spool_bytes,
        beat.clock_offset_seconds, beat.clock_offset_error_seconds, beat.policy_wanted, beat.frames_dropped)) AS newest
FROM raw_robot_status AS beat
GROUP BY robot_id, boot_epoch;

-- After the feed, so that nothing falls between.
INSERT INTO raw_robot_boots (robot_id, boot_epoch, first_received_at, received_at, newest)
SELECT robot_id, boot_epoch, min(beat.received_at) AS first_received_at, max(beat.received_at) AS received_at,
    max((beat.received_at, beat.reported_at, beat.spool_depth, beat.spool_age_seconds, toString(beat.policy),
        beat.policy_version, beat.episodes_ended, beat.errors, beat.simulated_seconds, beat.waiting, beat.spool_bytes,
        beat.clock_offset_seconds, beat.clock_offset_error_seconds, beat.policy_wanted, beat.frames_dropped)) AS newest
FROM raw_robot_status AS beat
GROUP BY robot_id, boot_epoch;

-- No FINAL: under it a part of a tuple is read without the comparison of the whole.
CREATE OR REPLACE VIEW robot_boots
(
    robot_id LowCardinality(String) COMMENT 'Robot.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client; a later one has a higher number.',
    first_received_at DateTime64(3, 'UTC') COMMENT 'When its first heartbeat came, by the broker''s clock.',
    received_at DateTime64(3, 'UTC') COMMENT 'When its last heartbeat came, by the broker''s clock.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the robot said so, by its own.',
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
SELECT robot_id, boot_epoch, first_received_at, newest.received_at AS received_at,
    newest.reported_at AS reported_at, newest.spool_depth AS spool_depth,
    newest.spool_age_seconds AS spool_age_seconds, newest.policy AS policy, newest.policy_version AS policy_version,
    newest.episodes_ended AS episodes_ended, newest.errors AS errors, newest.simulated_seconds AS simulated_seconds,
    newest.waiting AS waiting, newest.spool_bytes AS spool_bytes, newest.clock_offset_seconds AS clock_offset_seconds,
    newest.clock_offset_error_seconds AS clock_offset_error_seconds, newest.policy_wanted AS policy_wanted,
    newest.frames_dropped AS frames_dropped
FROM
(
    SELECT robot_id, boot_epoch, min(raw.first_received_at) AS first_received_at, max(raw.newest) AS newest
    FROM raw_robot_boots AS raw
    GROUP BY robot_id, boot_epoch
)
COMMENT 'Each start of a robot''s client that was heard of within 30 days, as its last heartbeat says.';

CREATE OR REPLACE VIEW robot_status
(
    robot_id LowCardinality(String) COMMENT 'Robot.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client.',
    first_received_at DateTime64(3, 'UTC') COMMENT 'When the first heartbeat of this boot came, by the broker''s clock.',
    received_at DateTime64(3, 'UTC') COMMENT 'When this one came, by the broker''s clock: how long ago the robot was there.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the robot said so, by its own, which may be wrong.',
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
SELECT *
FROM robot_boots
ORDER BY robot_id, boot_epoch DESC
LIMIT 1 BY robot_id
COMMENT 'The newest heartbeat of each robot: the last that came of its newest boot.';

-- By arrival, as everything that asks for the last hours. A boot counts the frames that it dropped, so that an hour's
-- are what that count grew by.
CREATE OR REPLACE VIEW robot_health_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the heartbeats came.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    heartbeats UInt64 COMMENT 'Heartbeats.',
    boots UInt64 COMMENT 'Starts of its client that they are from.',
    with_errors UInt64 COMMENT 'Those that told of an error.',
    max_spool_depth Int64 COMMENT 'Most events that waited for Kafka.',
    max_spool_age_seconds Float64 COMMENT 'Longest that one had waited.',
    mean_clock_offset_seconds Nullable(Float64) COMMENT 'The broker''s clock minus its own; NULL when unknown.',
    max_abs_clock_offset_seconds Nullable(Float64) COMMENT 'Largest of those, either way.',
    frames_dropped Nullable(Int64) COMMENT 'Camera frames that it dropped under pressure from the hour''s first heartbeat of a boot to the last; NULL when it records none.'
) AS
SELECT hour, robot_id, sum(beats) AS heartbeats, count() AS boots, sum(troubled) AS with_errors,
    max(depth) AS max_spool_depth, max(age) AS max_spool_age_seconds,
    sum(offsets) / nullIf(sum(known), 0) AS mean_clock_offset_seconds,
    max(largest) AS max_abs_clock_offset_seconds, sum(dropped) AS frames_dropped
FROM
(
    SELECT received_hour AS hour, robot_id, boot_epoch, count() AS beats, countIf(notEmpty(errors)) AS troubled,
        max(spool_depth) AS depth, max(spool_age_seconds) AS age, sum(clock_offset_seconds) AS offsets,
        count(clock_offset_seconds) AS known, max(abs(clock_offset_seconds)) AS largest,
        max(raw.frames_dropped) - min(raw.frames_dropped) AS dropped
    FROM raw_robot_status AS raw FINAL
    GROUP BY hour, robot_id, boot_epoch
)
GROUP BY hour, robot_id
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Spools, errors, clocks and lost frames of the robots, by hour.';
