-- The rows themselves, each once, with every column explained. FINAL lives here.

CREATE OR REPLACE VIEW episodes
(
    episode_id UUID COMMENT 'UUIDv7; its time is when the robot began the episode.',
    revision UInt32 COMMENT 'Newest revision; above 1 when events came after the episode had been closed.',
    robot_id LowCardinality(String) COMMENT 'Robot that recorded it.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client; grows with every start.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    instruction LowCardinality(String) COMMENT 'What the robot was told, in words.',
    embodiment LowCardinality(String) COMMENT 'Kind of robot body.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why it was recorded; EVALUATION is never trained on.',
    policy LowCardinality(String) COMMENT 'Policy line that the robot followed.',
    fps Float64 COMMENT 'Control rate, steps per second.',
    end Enum8('TERMINATED' = 1, 'TRUNCATED' = 2, 'ABORTED' = 3) COMMENT 'How it ended: by itself, cut short, or given up after a crash.',
    success Nullable(Bool) COMMENT 'Whether the task was done; NULL when nobody knows.',
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
    appended_at DateTime64(6, 'UTC') COMMENT 'When Kafka had its last event, by the broker''s clock.',
    materialized_at DateTime64(6, 'UTC') COMMENT 'When its payload was stored and it was announced.',
    indexed_at DateTime64(6, 'UTC') COMMENT 'When this row was written, last; a row that is written again gets a new time.',
    simulated_ended_at Nullable(Float64) COMMENT 'Simulated seconds at its end, where time is simulated.',
    stream_partition Int32 COMMENT 'Partition of training-episodes that holds its announcement.',
    stream_offset Int64 COMMENT 'Offset of its announcement.',
    policy_version Int64 COMMENT 'Newest version that was loaded during it; 0 for none.',
    start_hour DateTime64(0, 'UTC') COMMENT 'Hour in which it began.',
    end_hour DateTime64(0, 'UTC') COMMENT 'Hour in which it ended.'
) AS
SELECT *, policy_version, start_hour, end_hour
FROM raw_episodes FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each episode: its newest revision.';

CREATE OR REPLACE VIEW interventions
(
    episode_id UUID COMMENT 'Episode that it happened in.',
    intervention_id UUID COMMENT 'UUIDv7 of the takeover.',
    revision UInt32 COMMENT 'Revision of the episode that says so.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    task LowCardinality(String) COMMENT 'Task of the episode.',
    operator LowCardinality(String) COMMENT 'Who took over.',
    reason LowCardinality(String) COMMENT 'Why, in the operator''s words.',
    first_step Int32 COMMENT 'First step index under human control.',
    last_step Nullable(Int32) COMMENT 'Last step index under human control; NULL when its end is unknown.',
    began_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End, by the robot''s clock; NULL when unknown.'
) AS
SELECT * FROM raw_interventions FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each time that a human took over.';

CREATE OR REPLACE VIEW policy_versions
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    version Int64 COMMENT 'Grows by one with every publication of the line.',
    artifact_uri String COMMENT 's3:// address of the safetensors file.',
    sha256 FixedString(64) COMMENT 'Hex digest of that file.',
    size_bytes UInt64 COMMENT 'Size of that file.',
    key_id Nullable(String) COMMENT 'Key that signed it; NULL when unsigned.',
    parent_version Nullable(Int64) COMMENT 'Version that training continued from; NULL for the first.',
    algorithm LowCardinality(String) COMMENT 'Training algorithm.',
    learner_step Int64 COMMENT 'Gradient steps taken on the line so far.',
    episodes_admitted Int64 COMMENT 'Episodes that training could draw from.',
    config String COMMENT 'The learner''s settings, JSON.',
    code_version LowCardinality(String) COMMENT 'Version of this software.',
    published_at DateTime64(6, 'UTC') COMMENT 'When the learner published it, by its clock.',
    simulated_seconds Nullable(Float64) COMMENT 'Simulated time of publication, where time is simulated.'
) AS
SELECT * FROM raw_policy_versions FINAL
COMMENT 'One row for each published policy version.';

CREATE OR REPLACE VIEW policy_activations
(
    robot_id LowCardinality(String) COMMENT 'Robot.',
    boot_epoch Int64 COMMENT 'Start of the robot''s client.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    version Int64 COMMENT 'Version that became active.',
    sha256 FixedString(64) COMMENT 'Hex digest of what was loaded.',
    activated_at DateTime64(6, 'UTC') COMMENT 'When, by the robot''s clock.'
) AS
SELECT * FROM raw_policy_activations FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each time that a robot swapped to a policy version.';

CREATE OR REPLACE VIEW training_progress
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    learner_step Int64 COMMENT 'Gradient steps taken on the line so far.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the learner said so, by its clock.',
    loss Float64 COMMENT 'Mean loss since the report before; 0 when nothing was drawn.',
    online_share Float64 COMMENT 'Share of online samples since the report before.',
    groups Array(Tuple(task LowCardinality(String), online Bool, draws Int64, loss Float64)) COMMENT 'Draws and mean losses since the report before, by task and source.',
    episodes_admitted Int64 COMMENT 'Episodes that training can draw from.',
    steps_admitted Int64 COMMENT 'Steps that training can draw from.',
    simulated_seconds Nullable(Float64) COMMENT 'Simulated time, where time is simulated.',
    mixing Array(Tuple(task LowCardinality(String), first_step Int64, online_shares Array(Float64))) COMMENT 'Online share of every draw by task: online_shares[n] is that of learner step first_step + n - 1.'
) AS
SELECT * FROM raw_training_progress FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What the learner reported, losses being means since the report before.';

CREATE OR REPLACE VIEW training_admissions
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    episode_id UUID COMMENT 'Episode.',
    revision UInt32 COMMENT 'Revision of the episode.',
    seen_at DateTime64(6, 'UTC') COMMENT 'When the learner first read its announcement, by the learner''s clock.'
) AS
SELECT policy, episode_id, revision, min(raw.seen_at) AS seen_at
FROM raw_training_admissions AS raw
GROUP BY policy, episode_id, revision
COMMENT 'When the learner first read the announcement of each episode revision.';

-- A learner that was killed before it published tells a version's draws again, and they need not be the same.
CREATE OR REPLACE VIEW training_lineage
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    version Int64 COMMENT 'Version that the draws led to.',
    episode_id UUID COMMENT 'Episode that was drawn from.',
    revision UInt32 COMMENT 'Its revision at that time.',
    draws UInt64 COMMENT 'Samples drawn from it between the version before and this one.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the learner said so, by its clock.'
) AS
SELECT * FROM raw_training_lineage FINAL
WHERE (policy, version, reported_at) IN
(
    SELECT policy, version, max(reported_at) FROM raw_training_lineage GROUP BY policy, version
)
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Which episodes made a policy version, and how often each was drawn.';

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
    clock_offset_error_seconds Nullable(Float64) COMMENT 'How far that may be off.'
) AS
SELECT * FROM raw_robot_status FINAL
ORDER BY robot_id, boot_epoch DESC, reported_at DESC
LIMIT 1 BY robot_id
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'The newest heartbeat of each robot; the boot epoch counts before the clock, which may go back.';

CREATE OR REPLACE VIEW dead_letters
(
    topic LowCardinality(String) COMMENT 'Topic that the record was on.',
    partition Int32 COMMENT 'Its partition there.',
    offset Int64 COMMENT 'Its offset there.',
    robot_id String COMMENT 'Its key: the robot that sent it.',
    reason LowCardinality(String) COMMENT 'Why it cannot be used, one of a closed list.',
    error String COMMENT 'What is wrong with it, in words.',
    value String COMMENT 'Its bytes.',
    appended_at DateTime64(3, 'UTC') COMMENT 'When it was put on dead-letters.'
) AS
SELECT * FROM raw_dead_letters FINAL
COMMENT 'Records that could not be used, with the reason.';
