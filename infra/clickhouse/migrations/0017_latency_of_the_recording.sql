-- How long an episode was under way is a fact of its recording: labels, which come days later in a revision of their
-- own, change nothing of it. raw_episodes keeps the newest revision only, so the times of the newest one that has no
-- label lie in a table of their own, ordered for looks at the last hours. Inserted twice, a row is one row.
CREATE TABLE IF NOT EXISTS raw_episode_latency
(
    episode_id UUID,
    revision UInt32,
    robot_id LowCardinality(String),
    task LowCardinality(String),
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3),
    policy LowCardinality(String),
    captured_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    in_kafka_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    materialized_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    start_hour DateTime64(0, 'UTC') MATERIALIZED toStartOfHour(UUIDv7ToDateTime(episode_id, 'UTC')) CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))
ORDER BY (start_hour, episode_id)
SETTINGS min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS episode_latency_feed TO raw_episode_latency AS
SELECT episode_id, revision, robot_id, task, source, policy, ended_at AS captured_at, appended_at AS in_kafka_at,
    materialized_at
FROM raw_episodes
WHERE empty(labels);

-- After the feed, so that nothing falls between. Times of episodes that were labelled before are not here any more:
-- `sop reindex` brings them from the stream.
INSERT INTO raw_episode_latency
    (episode_id, revision, robot_id, task, source, policy, captured_at, in_kafka_at, materialized_at)
SELECT episode_id, revision, robot_id, task, source, policy, ended_at, appended_at, materialized_at
FROM raw_episodes
WHERE empty(labels);

-- The few that are excluded are found without a look at the others.
ALTER TABLE raw_episodes ADD INDEX IF NOT EXISTS by_excluded excluded TYPE minmax GRANULARITY 1;
ALTER TABLE raw_episodes MATERIALIZE INDEX by_excluded;

CREATE OR REPLACE VIEW episode_latency
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episode began.',
    episode_id UUID COMMENT 'Episode.',
    revision UInt32 COMMENT 'Newest revision without labels; its times are meant.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why it was recorded; the learner does not read EVALUATION.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    robot_id LowCardinality(String) COMMENT 'Robot that recorded it.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    captured_at DateTime64(6, 'UTC') COMMENT 'Its last event.',
    in_kafka_at DateTime64(6, 'UTC') COMMENT 'When Kafka had that.',
    materialized_at DateTime64(6, 'UTC') COMMENT 'When its payload was stored and it was announced.',
    seen_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the learner first read the announcement; NULL before that.',
    published_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the first version after that was published.',
    version Nullable(Int64) COMMENT 'That version.',
    active_at Nullable(DateTime64(6, 'UTC')) COMMENT 'When the same robot first swapped after that.'
) AS
SELECT hour, episode_id, revision, known.source AS source, task, known.robot_id AS robot_id, known.policy AS policy,
    captured_at, in_kafka_at, materialized_at, seen_at, published.published_at AS published_at,
    published.version AS version, active.activated_at AS active_at
FROM
(
    SELECT hour, episode_id, revision, source, task, robot_id, policy, captured_at, in_kafka_at, materialized_at,
        seen.seen_at AS seen_at,
        ifNull(seen.seen_at, toDateTime64('2200-01-01 00:00:00', 6, 'UTC')) AS seen_key
    FROM
    (
        SELECT start_hour AS hour, episode_id, revision, source, task, robot_id, policy, captured_at, in_kafka_at,
            materialized_at
        FROM raw_episode_latency FINAL
        WHERE episode_id NOT IN (SELECT episode_id FROM raw_episodes FINAL WHERE excluded)
    ) AS e
    LEFT JOIN
    (
        SELECT start_hour AS hour, policy,
            episode_id, revision, min(toNullable(raw.seen_at)) AS seen_at
        FROM raw_training_admissions AS raw
        GROUP BY start_hour, policy, episode_id, revision
    ) AS seen USING (hour, policy, episode_id, revision)
) AS known
ASOF LEFT JOIN
(
    SELECT policy, toNullable(version) AS version, published_at AS published_key, toNullable(published_at) AS published_at
    FROM policy_versions
) AS published ON known.policy = published.policy AND known.seen_key <= published.published_key
ASOF LEFT JOIN
(
    SELECT policy, robot_id, activated_at AS active_key, toNullable(activated_at) AS activated_at
    FROM policy_activations
) AS active ON known.policy = active.policy AND known.robot_id = active.robot_id
    AND ifNull(published.published_at, toDateTime64('2200-01-01 00:00:00', 6, 'UTC')) <= active.active_key
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'When each episode reached each stage, from its robot and back to it; but for those that a label excludes.';

-- Evaluations never reach the learner, and demonstrations are brought in by hand: neither says how long the fleet's
-- experience is under way.
CREATE OR REPLACE VIEW latency_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes began.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why they were recorded; ONLINE is the loop.',
    stage LowCardinality(String) COMMENT 'From and to, of: captured, kafka, materialized, seen (by the learner), published, active (on the robot).',
    episodes UInt64 COMMENT 'Episodes that got through the stage.',
    p50_ms Float64 COMMENT 'Median, milliseconds.',
    p95_ms Float64 COMMENT '95th percentile, milliseconds.',
    p99_ms Float64 COMMENT '99th percentile, milliseconds.'
) AS
SELECT hour, source, took.1 AS stage, took.2 AS episodes, took.3[1] / 1000 AS p50_ms, took.3[2] / 1000 AS p95_ms,
    took.3[3] / 1000 AS p99_ms
FROM
(
    WITH dateDiff('microsecond', captured_at, in_kafka_at) AS kafka,
        dateDiff('microsecond', in_kafka_at, materialized_at) AS materialized,
        dateDiff('microsecond', materialized_at, seen_at) AS seen,
        dateDiff('microsecond', seen_at, published_at) AS published,
        dateDiff('microsecond', published_at, active_at) AS active,
        dateDiff('microsecond', captured_at, active_at) AS whole
    SELECT hour, source, [
        ('captured_to_kafka', count(), quantilesExactInclusive(0.5, 0.95, 0.99)(kafka)),
        ('kafka_to_materialized', count(), quantilesExactInclusive(0.5, 0.95, 0.99)(materialized)),
        ('materialized_to_seen', count(seen), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(seen), seen IS NOT NULL)),
        ('seen_to_published', count(published), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(published), published IS NOT NULL)),
        ('published_to_active', count(active), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(active), active IS NOT NULL)),
        ('captured_to_active', count(whole), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(whole), whole IS NOT NULL))
    ] AS stages
    FROM episode_latency
    GROUP BY hour, source
)
ARRAY JOIN stages AS took
WHERE took.2 > 0
COMMENT 'How long each stage took, from captured to active again, by the hour in which the episodes began.';

-- Nobody asked them: latency_by_hour has the stages, and human_effort the sums.
DROP VIEW IF EXISTS storing_latency_by_hour;
DROP VIEW IF EXISTS human_effort_by_task;
