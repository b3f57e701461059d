-- Stored rows. Everything here may be inserted more than once (the index writes at least once), so each table is a
-- ReplacingMergeTree whose order key is the row's identity, and nothing additive reads it. Analysts use the views.

-- task first: dashboards ask by task, and a range of it is then one slice of each partition.
-- The partition is the month in the UUIDv7, in UTC whatever the server's zone: it never changes, so FINAL need not
-- merge across partitions.
CREATE TABLE IF NOT EXISTS raw_episodes
(
    episode_id UUID,
    revision UInt32,
    robot_id LowCardinality(String),
    boot_epoch Int64,
    task LowCardinality(String),
    instruction LowCardinality(String),
    embodiment LowCardinality(String),
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3),
    policy LowCardinality(String),
    fps Float64,
    end Enum8('TERMINATED' = 1, 'TRUNCATED' = 2, 'ABORTED' = 3),
    success Nullable(Bool),
    closed_by Enum8('COMPLETE' = 1, 'SUCCESSOR' = 2, 'TIMEOUT' = 3),
    payload_uri String CODEC(ZSTD(1)),
    payload_sha256 FixedString(64) CODEC(ZSTD(1)),
    payload_bytes UInt64,
    step_count UInt32,
    human_step_count UInt32,
    reward_sum Float64,
    missing_count UInt64,
    rejected_count UInt64,
    policy_versions Array(Int64),
    human_ranges Array(Tuple(first Int64, last Int64)),
    intervention_count UInt32,
    source_offsets Array(Tuple(topic LowCardinality(String), partition Int32, first Int64, last Int64)),
    started_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    materialized_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    indexed_at DateTime64(6, 'UTC') DEFAULT now64(6),
    simulated_ended_at Nullable(Float64),
    stream_partition Int32,
    stream_offset Int64
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (task, episode_id);

-- version = the episode's revision: a later revision may know an end that an earlier one did not.
CREATE TABLE IF NOT EXISTS raw_interventions
(
    episode_id UUID,
    intervention_id UUID,
    revision UInt32,
    robot_id LowCardinality(String),
    task LowCardinality(String),
    operator LowCardinality(String),
    reason LowCardinality(String),
    first_step Int32,
    last_step Nullable(Int32),
    began_at DateTime64(6, 'UTC'),
    ended_at Nullable(DateTime64(6, 'UTC'))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (episode_id, intervention_id);

CREATE TABLE IF NOT EXISTS raw_policy_versions
(
    policy LowCardinality(String),
    version Int64,
    artifact_uri String,
    sha256 FixedString(64),
    size_bytes UInt64,
    key_id Nullable(String),
    parent_version Nullable(Int64),
    algorithm LowCardinality(String),
    learner_step Int64,
    episodes_admitted Int64,
    config String CODEC(ZSTD(1)),
    code_version LowCardinality(String),
    published_at DateTime64(6, 'UTC'),
    simulated_seconds Nullable(Float64)
)
ENGINE = ReplacingMergeTree
ORDER BY (policy, version);

CREATE TABLE IF NOT EXISTS raw_policy_activations
(
    robot_id LowCardinality(String),
    boot_epoch Int64,
    policy LowCardinality(String),
    version Int64,
    sha256 FixedString(64),
    activated_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(activated_at)
ORDER BY (policy, version, robot_id, activated_at)
TTL toDateTime(activated_at) + INTERVAL 400 DAY;

CREATE TABLE IF NOT EXISTS raw_training_progress
(
    policy LowCardinality(String),
    learner_step Int64,
    reported_at DateTime64(6, 'UTC'),
    loss Float64,
    online_share Float64,
    groups Array(Tuple(task LowCardinality(String), online Bool, draws Int64, loss Float64)),
    episodes_admitted Int64,
    steps_admitted Int64,
    simulated_seconds Nullable(Float64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(reported_at)
ORDER BY (policy, learner_step, reported_at)
TTL toDateTime(reported_at) + INTERVAL 400 DAY;

-- When the learner first read an episode's announcement; the earliest counts, see the view.
CREATE TABLE IF NOT EXISTS raw_training_admissions
(
    policy LowCardinality(String),
    episode_id UUID,
    revision UInt32,
    seen_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (policy, episode_id, revision, seen_at);

CREATE TABLE IF NOT EXISTS raw_robot_status
(
    robot_id LowCardinality(String),
    boot_epoch Int64,
    reported_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    spool_depth Int64,
    spool_age_seconds Float64,
    policy LowCardinality(String),
    policy_version Int64,
    episodes_ended Int64,
    errors Array(String),
    simulated_seconds Nullable(Float64),
    waiting Bool
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(reported_at)
ORDER BY (robot_id, reported_at)
TTL toDateTime(reported_at) + INTERVAL 30 DAY;

-- A record is one dead letter, however often it was tried: its place in its own topic identifies it.
CREATE TABLE IF NOT EXISTS raw_dead_letters
(
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    robot_id String,
    reason LowCardinality(String),
    error String,
    value String CODEC(ZSTD(3)),
    appended_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(appended_at)
ORDER BY (topic, partition, offset)
TTL toDateTime(appended_at) + INTERVAL 90 DAY;
