-- What people say of episodes after the fact. A label leads to a new revision, so the row that is kept has all of them.

ALTER TABLE raw_episodes
    ADD COLUMN IF NOT EXISTS recorded_success Nullable(Bool) AFTER success,
    ADD COLUMN IF NOT EXISTS excluded Bool AFTER recorded_success,
    ADD COLUMN IF NOT EXISTS labels Array(Tuple(label_id UUID, author LowCardinality(String), reason String,
        verdict Nullable(Enum8('SUCCEEDED' = 1, 'FAILED' = 2, 'UNKNOWN' = 3)), excluded Nullable(Bool),
        labelled_at DateTime64(6, 'UTC')));

-- Announcements that are older than labels do not repeat what the robot said: it is `success` there.
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
    excluded Bool COMMENT 'Whether a label leaves it out of training and of all views but this one, the labels'' and the lineage''s.',
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

CREATE OR REPLACE VIEW episode_labels
(
    episode_id UUID COMMENT 'Episode.',
    label_id UUID COMMENT 'UUIDv7 of the label.',
    labelled_at DateTime64(6, 'UTC') COMMENT 'When it was given, by its author''s clock.',
    author LowCardinality(String) COMMENT 'Who says so.',
    reason String COMMENT 'Why, in words.',
    verdict Nullable(Enum8('SUCCEEDED' = 1, 'FAILED' = 2, 'UNKNOWN' = 3)) COMMENT 'What it says of success; NULL: nothing.',
    excludes Nullable(Bool) COMMENT 'Whether it leaves the episode out, or takes it in again; NULL: it says nothing of that.',
    counts Bool COMMENT 'Whether no later label says something else of what it says.',
    task LowCardinality(String) COMMENT 'Task of the episode.',
    robot_id LowCardinality(String) COMMENT 'Robot of the episode.',
    recorded_success Nullable(Bool) COMMENT 'What the robot said of success.',
    success Nullable(Bool) COMMENT 'Success by all labels together.',
    excluded Bool COMMENT 'Whether the episode is left out, by all labels together.'
) AS
SELECT episode_id, one.label_id AS label_id, one.labelled_at AS labelled_at, one.author AS author, one.reason AS reason,
    one.verdict AS verdict, one.excluded AS excludes,
    CAST((one.verdict IS NOT NULL AND place = arrayLastIndex(l -> l.verdict IS NOT NULL, all_of_it))
        OR (one.excluded IS NOT NULL AND place = arrayLastIndex(l -> l.excluded IS NOT NULL, all_of_it)), 'Bool') AS counts,
    task, robot_id, recorded_success, success, excluded
FROM
(
    SELECT episode_id, labels AS all_of_it, task, robot_id, recorded_success, success, excluded FROM episodes
    WHERE notEmpty(labels)
)
ARRAY JOIN all_of_it AS one, arrayEnumerate(all_of_it) AS place
COMMENT 'Who said what of which episode after the fact, when and why: one row for each label.';

-- Everything that speaks of success, throughput and effort reads this view: leaving episodes out here leaves them out
-- there.
CREATE OR REPLACE VIEW episode_outcomes
(
    episode_id UUID COMMENT 'Episode.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    robot_id LowCardinality(String) COMMENT 'Robot that recorded it.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why it was recorded.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during it; 0 for none.',
    end Enum8('TERMINATED' = 1, 'TRUNCATED' = 2, 'ABORTED' = 3) COMMENT 'How it ended.',
    success Nullable(UInt8) COMMENT '1, 0, or NULL when nobody knows; labels count.',
    autonomous Bool COMMENT 'Whether no human chose any action.',
    step_count UInt32 COMMENT 'Control steps.',
    human_step_count UInt32 COMMENT 'Steps whose action a human chose.',
    intervention_count UInt32 COMMENT 'Times that a human took over.',
    reward_sum Float64 COMMENT 'Sum of the steps'' rewards.',
    control_seconds Float64 COMMENT 'Time under control: steps divided by the control rate. Resets are not in it.',
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which it ended.',
    started_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at DateTime64(6, 'UTC') COMMENT 'End, by the robot''s clock.',
    simulated_ended_at Nullable(Float64) COMMENT 'Simulated seconds at its end, where time is simulated.'
) AS
SELECT
    episode_id,
    task,
    robot_id,
    source,
    policy,
    policy_version,
    end,
    CAST(success, 'Nullable(UInt8)') AS success,
    human_step_count = 0 AS autonomous,
    step_count,
    human_step_count,
    intervention_count,
    reward_sum,
    if(fps > 0, step_count / fps, 0) AS control_seconds,
    end_hour AS hour,
    started_at,
    ended_at,
    simulated_ended_at
FROM episodes
WHERE NOT excluded
COMMENT 'How each episode went, but for those that a label excludes.';

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
    without_steps UInt64 COMMENT 'Those without a single step.'
) AS
SELECT end_hour AS hour, robot_id, count() AS episodes,
    countIf(end = 'TRUNCATED') AS truncated, countIf(end = 'ABORTED') AS aborted,
    countIf(closed_by = 'TIMEOUT') AS timed_out, countIf(success IS NULL) AS unjudged,
    countIf(revision > 1) AS revised, countIf(notEmpty(labels)) AS labelled,
    countIf(success IS DISTINCT FROM recorded_success) AS overruled, countIf(e.excluded) AS excluded,
    countIf(missing_count > 0) AS with_gaps,
    sum(missing_count) AS missing_events, sum(rejected_count) AS rejected_events,
    countIf(step_count = 0) AS without_steps
FROM episodes AS e
GROUP BY hour, robot_id
COMMENT 'What is wrong with the episodes of each robot, by hour.';

-- Episodes are looked up by the ids of the one version: a join with all of them would read all of them.
CREATE OR REPLACE VIEW lineage_of_version AS
SELECT drawn.episode_id AS episode_id, drawn.revision AS revision, drawn.draws AS draws,
    drawn.draws / sum(drawn.draws) OVER () AS share, task, robot_id, source, success, excluded, human_step_count,
    started_at
FROM
(
    SELECT * FROM raw_training_lineage FINAL
    WHERE policy = {policy:String} AND version = {version:Int64} AND reported_at =
    (
        SELECT max(reported_at) FROM raw_training_lineage
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS drawn
LEFT JOIN
(
    SELECT episode_id, task, robot_id, source, success, excluded, human_step_count, started_at
    FROM episodes
    WHERE episode_id IN
    (
        SELECT episode_id FROM raw_training_lineage
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS e ON drawn.episode_id = e.episode_id
COMMENT 'The episodes that made version `version` of line `policy`, and how often each was drawn since the version before.
episode_id: Episode.
revision: Its revision at that time.
draws: Samples drawn from it.
share: Share of all draws.
task: Short name of the task.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
excluded: Whether a label leaves it out of training by now.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';
