-- How long a robot's experience is under way until it acts again. Each time is of the clock of who did it: captured
-- and active of the robot's, Kafka's of the broker's, seen and published of the learner's (robot_status has offsets).

-- `hour` is made from the episode's id, so that it can be a key of the join: a condition on it narrows both sides.
CREATE OR REPLACE VIEW episode_latency
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episode began.',
    episode_id UUID COMMENT 'Episode.',
    revision UInt32 COMMENT 'Newest revision; its times are meant.',
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
SELECT hour, episode_id, revision, task, known.robot_id AS robot_id, known.policy AS policy, captured_at, in_kafka_at,
    materialized_at, seen_at, published.published_at AS published_at, published.version AS version, active.activated_at AS active_at
FROM
(
    SELECT hour, episode_id, revision, task, robot_id, policy, captured_at, in_kafka_at, materialized_at,
        seen.seen_at AS seen_at,
        ifNull(seen.seen_at, toDateTime64('2200-01-01 00:00:00', 6, 'UTC')) AS seen_key
    FROM
    (
        SELECT start_hour AS hour, episode_id,
            revision, task, robot_id, policy, ended_at AS captured_at, appended_at AS in_kafka_at, materialized_at
        FROM episodes
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
COMMENT 'When each episode reached each stage, from its robot and back to it.';

CREATE OR REPLACE VIEW latency_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes began.',
    stage LowCardinality(String) COMMENT 'From and to, of: captured, kafka, materialized, seen (by the learner), published, active (on the robot).',
    episodes UInt64 COMMENT 'Episodes that got through the stage.',
    p50_ms Float64 COMMENT 'Median, milliseconds.',
    p95_ms Float64 COMMENT '95th percentile, milliseconds.',
    p99_ms Float64 COMMENT '99th percentile, milliseconds.'
) AS
SELECT hour, took.1 AS stage, count() AS episodes,
    quantileExactInclusive(0.5)(assumeNotNull(took.2)) AS p50_ms,
    quantileExactInclusive(0.95)(assumeNotNull(took.2)) AS p95_ms,
    quantileExactInclusive(0.99)(assumeNotNull(took.2)) AS p99_ms
FROM
(
    SELECT hour, [
        ('captured_to_kafka', toNullable(dateDiff('microsecond', captured_at, in_kafka_at) / 1000)),
        ('kafka_to_materialized', toNullable(dateDiff('microsecond', in_kafka_at, materialized_at) / 1000)),
        ('materialized_to_seen', dateDiff('microsecond', materialized_at, seen_at) / 1000),
        ('seen_to_published', dateDiff('microsecond', seen_at, published_at) / 1000),
        ('published_to_active', dateDiff('microsecond', published_at, active_at) / 1000),
        ('captured_to_active', dateDiff('microsecond', captured_at, active_at) / 1000)
    ] AS stages
    FROM episode_latency
)
ARRAY JOIN stages AS took
WHERE took.2 IS NOT NULL
GROUP BY hour, stage
COMMENT 'How long each stage took, from captured to active again, by the hour in which the episodes began.';

CREATE OR REPLACE VIEW policy_staleness
(
    episode_id UUID COMMENT 'Episode.',
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which it ended.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during it.',
    newest_version Int64 COMMENT 'Newest version that was published when it began.',
    versions_behind Int64 COMMENT 'newest_version - policy_version; negative when the clocks disagree, or when it was published during the episode.',
    seconds_behind Nullable(Float64) COMMENT 'How long before the episode the successor of policy_version was published; 0 when it was the newest.'
) AS
SELECT acted.episode_id AS episode_id, acted.hour AS hour, acted.task AS task, acted.robot_id AS robot_id,
    acted.policy AS policy, acted.policy_version AS policy_version, acted.newest_version AS newest_version,
    newest_version - policy_version AS versions_behind,
    if(versions_behind <= 0, 0, dateDiff('millisecond', successor.published_at, acted.started_at) / 1000) AS seconds_behind
FROM
(
    SELECT e.episode_id AS episode_id, e.hour AS hour, e.task AS task, e.robot_id AS robot_id, e.policy AS policy,
        e.policy_version AS policy_version, e.started_at AS started_at, newest.version AS newest_version
    FROM (SELECT * FROM episode_outcomes WHERE source = 'ONLINE' AND policy_version > 0) AS e
    ASOF INNER JOIN (SELECT policy, version, published_at FROM policy_versions) AS newest
        ON e.policy = newest.policy AND e.started_at >= newest.published_at
) AS acted
LEFT JOIN (SELECT policy, version - 1 AS before, toNullable(published_at) AS published_at FROM policy_versions) AS successor
    ON acted.policy = successor.policy AND acted.policy_version = successor.before
COMMENT 'How old the policy was that acted in each online episode.';

CREATE OR REPLACE VIEW staleness_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    episodes UInt64 COMMENT 'Online episodes.',
    newest_share Float64 COMMENT 'Share of them that the newest version of their time acted in.',
    mean_versions_behind Float64 COMMENT 'Mean of versions_behind.',
    max_versions_behind Int64 COMMENT 'Largest of them.',
    p95_seconds_behind Nullable(Float64) COMMENT '95th percentile of seconds_behind.'
) AS
SELECT hour, policy, count() AS episodes, countIf(versions_behind <= 0) / episodes AS newest_share,
    avg(versions_behind) AS mean_versions_behind, max(versions_behind) AS max_versions_behind,
    quantileExactInclusive(0.95)(seconds_behind) AS p95_seconds_behind
FROM policy_staleness
GROUP BY hour, policy
COMMENT 'How old the policies were that acted, by hour.';
