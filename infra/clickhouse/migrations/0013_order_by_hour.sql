-- Rows of a task lie in the order of time. ClickHouse compares UUIDs by their second half, which is random: without the
-- hour before it, a look at one day reads the whole month. The hour follows from the id, so that a row's identity stays
-- what it was. Parts that were inserted one after the other hardly overlap now, and FINAL merges little even in the
-- month that is being written.
--
-- A key cannot be changed: the table is made anew beside the old one, filled, and put in its place. What was inserted
-- while that went on is copied after it; a row that is copied twice is one row. The tables change places in one step,
-- so that there is a table of the name whenever this is cut off. An earlier form renamed one after the other: what was
-- cut off between the two is mended by the first statement.
-- was: 4b8f00bef8444f8d7f5b882360bc6b89d51dcaa27f5461acf1ddcbf501a59a1b

-- when: SELECT countIf(name = 'raw_episodes') = 0 AND countIf(name = 'raw_episodes_by_hour') = 1 FROM system.tables WHERE database = currentDatabase()
RENAME TABLE raw_episodes_by_hour TO raw_episodes;

-- when: SELECT sorting_key = 'task, episode_id' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_episodes'
CREATE TABLE IF NOT EXISTS raw_episodes_by_hour
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
    recorded_success Nullable(Bool),
    excluded Bool,
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
    stream_offset Int64,
    labels Array(Tuple(label_id UUID, author LowCardinality(String), reason String,
        verdict Nullable(Enum8('SUCCEEDED' = 1, 'FAILED' = 2, 'UNKNOWN' = 3)), excluded Nullable(Bool),
        labelled_at DateTime64(6, 'UTC'))),
    policy_version Int64 MATERIALIZED arrayMax(arrayPushBack(policy_versions, 0)),
    start_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(UUIDv7ToDateTime(episode_id, 'UTC')) CODEC(Delta, ZSTD(1)),
    end_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(ended_at) CODEC(Delta, ZSTD(1)),
    INDEX by_end_hour end_hour TYPE minmax GRANULARITY 1,
    INDEX by_start started_at TYPE minmax GRANULARITY 1,
    INDEX by_id episode_id TYPE bloom_filter(0.01)
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (task, start_hour, episode_id)
SETTINGS min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

-- when: SELECT sorting_key = 'task, episode_id' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_episodes'
INSERT INTO raw_episodes_by_hour
    (episode_id, revision, robot_id, boot_epoch, task, instruction, embodiment, source, policy, fps, end, success,
    recorded_success, excluded, closed_by, payload_uri, payload_sha256, payload_bytes, step_count, human_step_count,
    reward_sum, missing_count, rejected_count, policy_versions, human_ranges, intervention_count, source_offsets,
    started_at, ended_at, appended_at, materialized_at, indexed_at, simulated_ended_at, stream_partition, stream_offset,
    labels)
SELECT episode_id, revision, robot_id, boot_epoch, task, instruction, embodiment, source, policy, fps, end, success,
    recorded_success, excluded, closed_by, payload_uri, payload_sha256, payload_bytes, step_count, human_step_count,
    reward_sum, missing_count, rejected_count, policy_versions, human_ranges, intervention_count, source_offsets,
    started_at, ended_at, appended_at, materialized_at, indexed_at, simulated_ended_at, stream_partition, stream_offset,
    labels
FROM raw_episodes;

-- when: SELECT sorting_key = 'task, episode_id' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_episodes'
EXCHANGE TABLES raw_episodes AND raw_episodes_by_hour;

-- when: SELECT sorting_key = 'task, episode_id' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_episodes_by_hour'
RENAME TABLE raw_episodes_by_hour TO raw_episodes_by_id;

-- when: SELECT count() > 0 FROM system.tables WHERE database = currentDatabase() AND name = 'raw_episodes_by_id'
INSERT INTO raw_episodes
    (episode_id, revision, robot_id, boot_epoch, task, instruction, embodiment, source, policy, fps, end, success,
    recorded_success, excluded, closed_by, payload_uri, payload_sha256, payload_bytes, step_count, human_step_count,
    reward_sum, missing_count, rejected_count, policy_versions, human_ranges, intervention_count, source_offsets,
    started_at, ended_at, appended_at, materialized_at, indexed_at, simulated_ended_at, stream_partition, stream_offset,
    labels)
SELECT episode_id, revision, robot_id, boot_epoch, task, instruction, embodiment, source, policy, fps, end, success,
    recorded_success, excluded, closed_by, payload_uri, payload_sha256, payload_bytes, step_count, human_step_count,
    reward_sum, missing_count, rejected_count, policy_versions, human_ranges, intervention_count, source_offsets,
    started_at, ended_at, appended_at, materialized_at, indexed_at, simulated_ended_at, stream_partition, stream_offset,
    labels
FROM raw_episodes_by_id
WHERE indexed_at >= (SELECT max(indexed_at) - INTERVAL 1 DAY FROM raw_episodes_by_id);

DROP TABLE IF EXISTS raw_episodes_by_id;

-- when: SELECT countIf(name = 'raw_training_admissions') = 0 AND countIf(name = 'raw_training_admissions_by_hour') = 1 FROM system.tables WHERE database = currentDatabase()
RENAME TABLE raw_training_admissions_by_hour TO raw_training_admissions;

-- when: SELECT sorting_key = 'policy, episode_id, revision, seen_at' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_training_admissions'
CREATE TABLE IF NOT EXISTS raw_training_admissions_by_hour
(
    policy LowCardinality(String),
    episode_id UUID,
    revision UInt32,
    seen_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    start_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(UUIDv7ToDateTime(episode_id, 'UTC')) CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (policy, start_hour, episode_id, revision, seen_at);

-- when: SELECT sorting_key = 'policy, episode_id, revision, seen_at' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_training_admissions'
INSERT INTO raw_training_admissions_by_hour (policy, episode_id, revision, seen_at)
SELECT policy, episode_id, revision, seen_at FROM raw_training_admissions;

-- when: SELECT sorting_key = 'policy, episode_id, revision, seen_at' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_training_admissions'
EXCHANGE TABLES raw_training_admissions AND raw_training_admissions_by_hour;

-- when: SELECT sorting_key = 'policy, episode_id, revision, seen_at' FROM system.tables WHERE database = currentDatabase() AND name = 'raw_training_admissions_by_hour'
RENAME TABLE raw_training_admissions_by_hour TO raw_training_admissions_by_id;

-- when: SELECT count() > 0 FROM system.tables WHERE database = currentDatabase() AND name = 'raw_training_admissions_by_id'
INSERT INTO raw_training_admissions (policy, episode_id, revision, seen_at)
SELECT policy, episode_id, revision, seen_at FROM raw_training_admissions_by_id;

DROP TABLE IF EXISTS raw_training_admissions_by_id;
