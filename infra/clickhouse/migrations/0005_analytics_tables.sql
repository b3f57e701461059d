-- What the analysts' views stand on.

-- MATERIALIZED columns are stored. An array function over ten million arrays would cost most of a dashboard's second;
-- an hour that a view works out narrows no read, because an index knows columns, and few functions of them.
ALTER TABLE raw_episodes
    ADD COLUMN IF NOT EXISTS policy_version Int64 MATERIALIZED arrayMax(arrayPushBack(policy_versions, 0)),
    ADD COLUMN IF NOT EXISTS start_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(UUIDv7ToDateTime(episode_id, 'UTC')),
    ADD COLUMN IF NOT EXISTS end_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(ended_at);
ALTER TABLE raw_training_admissions
    ADD COLUMN IF NOT EXISTS start_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(UUIDv7ToDateTime(episode_id, 'UTC'));

-- ClickHouse compares UUIDs by their second half, which is random: within a task and a month, rows lie in no order of
-- time. These indexes spare the other months, which is most of what a look at the last day would read. A projection by
-- time would spare more, and is never used under FINAL.
ALTER TABLE raw_episodes ADD INDEX IF NOT EXISTS by_start_hour start_hour TYPE minmax;
ALTER TABLE raw_episodes ADD INDEX IF NOT EXISTS by_end_hour end_hour TYPE minmax;
ALTER TABLE raw_episodes ADD INDEX IF NOT EXISTS by_start started_at TYPE minmax;
ALTER TABLE raw_training_admissions ADD INDEX IF NOT EXISTS by_start_hour start_hour TYPE minmax;
-- One episode by its id alone, without its task.
ALTER TABLE raw_episodes ADD INDEX IF NOT EXISTS by_id episode_id TYPE bloom_filter(0.01);

-- FINAL merges nothing in a partition of one part. So a month that has been quiet for ten minutes is merged into one,
-- after which FINAL costs what a plain read costs; the month being written keeps its parts, as it would be merged
-- over and over.
ALTER TABLE raw_episodes
    MODIFY SETTING min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;
ALTER TABLE raw_interventions
    MODIFY SETTING min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

-- The newest report of a version's draws counts. By policy and version first: "what made version N" is one slice, and
-- ids in order compress well within it. An episode's versions are found by the index.
CREATE TABLE IF NOT EXISTS raw_training_lineage
(
    policy LowCardinality(String),
    version Int64,
    episode_id UUID,
    revision UInt32,
    draws UInt64,
    reported_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX by_episode episode_id TYPE bloom_filter(0.01)
)
ENGINE = ReplacingMergeTree(reported_at)
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (policy, version, episode_id, revision);
