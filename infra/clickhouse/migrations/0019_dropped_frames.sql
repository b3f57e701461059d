-- Camera frames that a robot dropped under pressure: its steps are whole, but what it saw has gaps. Announcements have said
-- so all along; rows from before say 0, and `sop reindex` brings the truth.
ALTER TABLE raw_episodes ADD COLUMN IF NOT EXISTS frames_dropped UInt64 AFTER rejected_count;

CREATE OR REPLACE VIEW episodes
(
    episode_id UUID COMMENT 'UUIDv7; its time is when the robot began the episode.',
    revision UInt32 COMMENT 'Newest revision; above 1 when events or labels came after the episode had been closed.',
    robot_id LowCardinality(String) COMMENT 'Robot that recorded it.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client; grows with every start.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    instruction LowCardinality(String) COMMENT 'What the robot was told, in words.',
    embodiment LowCardinality(String) COMMENT 'Kind of robot body.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why it was recorded; EVALUATION is never trained on.',
    policy LowCardinality(String) COMMENT 'Policy line that the robot followed.',
    fps Float64 COMMENT 'Control rate, steps per second.',
    end Enum8('TERMINATED' = 1, 'TRUNCATED' = 2, 'ABORTED' = 3) COMMENT 'How it ended: by itself, cut short, or given up after a crash.',
    success Nullable(Bool) COMMENT 'Whether the task was done, by its newest label with a verdict, else as the robot said; NULL when nobody knows.',
    recorded_success Nullable(Bool) COMMENT 'What the robot said of success, whatever labels say.',
    excluded Bool COMMENT 'Whether a label leaves it out of training and of what views count. This view, the interventions'', the labels'', the lineage''s and the data quality''s still have it.',
    labels Array(Tuple(label_id UUID, author LowCardinality(String), reason String, verdict Nullable(Enum8('SUCCEEDED' = 1, 'FAILED' = 2, 'UNKNOWN' = 3)), excluded Nullable(Bool), labelled_at DateTime64(6, 'UTC'))) COMMENT 'What people said of it after the fact, in order of time.',
    closed_by Enum8('COMPLETE' = 1, 'SUCCESSOR' = 2, 'TIMEOUT' = 3) COMMENT 'Why it was sealed: all events seen, the robot went on to another, or silence.',
    payload_uri String COMMENT 's3:// address of the Parquet file with its steps.',
    payload_sha256 FixedString(64) COMMENT 'Hex digest of that file.',
    payload_bytes UInt64 COMMENT 'Size of that file.',
    step_count UInt32 COMMENT 'Control steps in the payload.',
    human_step_count UInt32 COMMENT 'Steps whose action a human chose.',
    reward_sum Float64 COMMENT 'Sum of the steps'' rewards.',
    missing_count UInt64 COMMENT 'Events of the episode that never arrived: gaps in the robot''s sequence.',
    rejected_count UInt64 COMMENT 'Events of the episode that are dead letters.',
    frames_dropped UInt64 COMMENT 'Camera frames that its robot dropped under pressure; its steps are whole all the same.',
    policy_versions Array(Int64) COMMENT 'Versions that were loaded during it, ascending.',
    human_ranges Array(Tuple(first Int64, last Int64)) COMMENT 'Ranges of step indices under human control, both ends included.',
    intervention_count UInt32 COMMENT 'Times that a human took over.',
    source_offsets Array(Tuple(topic LowCardinality(String), partition Int32, first Int64, last Int64)) COMMENT 'Where its events lie in Kafka.',
    started_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at DateTime64(6, 'UTC') COMMENT 'Last event, by the robot''s clock.',
    appended_at DateTime64(6, 'UTC') COMMENT 'When Kafka had its last event, by the broker''s clock; labels do not count.',
    materialized_at DateTime64(6, 'UTC') COMMENT 'When its payload was stored and it was announced.',
    indexed_at DateTime64(6, 'UTC') COMMENT 'When this row was written, last; a row that is written again gets a new time.',
    simulated_ended_at Nullable(Float64) COMMENT 'Simulated seconds at its end, where time is simulated.',
    stream_partition Int32 COMMENT 'Partition of training-episodes that holds its announcement.',
    stream_offset Int64 COMMENT 'Offset of its announcement.',
    policy_version Int64 COMMENT 'Newest version that was loaded during it; 0 for none.',
    start_hour DateTime64(0, 'UTC') COMMENT 'Hour in which it began.',
    end_hour DateTime64(0, 'UTC') COMMENT 'Hour in which it ended.'
) AS
SELECT * REPLACE (if(empty(labels), success, recorded_success) AS recorded_success), policy_version, start_hour, end_hour
FROM raw_episodes FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each episode: its newest revision.';

CREATE OR REPLACE VIEW data_quality_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    episodes UInt64 COMMENT 'Episodes, however they ended.',
    truncated UInt64 COMMENT 'Those that were cut short.',
    aborted UInt64 COMMENT 'Those that were given up after a crash.',
    timed_out UInt64 COMMENT 'Those that silence closed.',
    unjudged UInt64 COMMENT 'Those of which success is unknown.',
    revised UInt64 COMMENT 'Those with more than one revision: events or labels came after they had been closed.',
    labelled UInt64 COMMENT 'Those that somebody labelled.',
    overruled UInt64 COMMENT 'Those of which a label says another success than the robot.',
    excluded UInt64 COMMENT 'Those that a label leaves out of training and success rates.',
    with_gaps UInt64 COMMENT 'Those with missing events.',
    missing_events UInt64 COMMENT 'Events that never arrived; a dropped step is one.',
    rejected_events UInt64 COMMENT 'Events that are dead letters.',
    frames_dropped UInt64 COMMENT 'Camera frames that robots dropped under pressure.',
    without_steps UInt64 COMMENT 'Those without a single step.'
) AS
SELECT end_hour AS hour, robot_id, count() AS episodes,
    countIf(end = 'TRUNCATED') AS truncated, countIf(end = 'ABORTED') AS aborted,
    countIf(closed_by = 'TIMEOUT') AS timed_out, countIf(success IS NULL) AS unjudged,
    countIf(revision > 1) AS revised, countIf(notEmpty(labels)) AS labelled,
    countIf(success IS DISTINCT FROM recorded_success) AS overruled, countIf(e.excluded) AS excluded,
    countIf(missing_count > 0) AS with_gaps,
    sum(missing_count) AS missing_events, sum(rejected_count) AS rejected_events,
    sum(e.frames_dropped) AS frames_dropped,
    countIf(step_count = 0) AS without_steps
FROM episodes AS e
GROUP BY hour, robot_id
COMMENT 'What is wrong with the episodes of each robot, by hour.';
