-- The same answers with less work.

-- Six stages of one row are six rows to aggregate. Those that Kafka and the materializer take need none of the learner's
-- tables: who asks for them alone asks the view below, which joins nothing.
CREATE OR REPLACE VIEW storing_latency_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes began.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    episodes UInt64 COMMENT 'Episodes, but for those that were labelled since.',
    kafka_p50_ms Float64 COMMENT 'From captured to Kafka: median, milliseconds.',
    kafka_p95_ms Float64 COMMENT 'Its 95th percentile.',
    kafka_p99_ms Float64 COMMENT 'Its 99th percentile.',
    materialized_p50_ms Float64 COMMENT 'From Kafka to materialized: median, milliseconds.',
    materialized_p95_ms Float64 COMMENT 'Its 95th percentile.',
    materialized_p99_ms Float64 COMMENT 'Its 99th percentile.'
) AS
SELECT hour, task, episodes, kafka[1] / 1000 AS kafka_p50_ms, kafka[2] / 1000 AS kafka_p95_ms,
    kafka[3] / 1000 AS kafka_p99_ms, materialized[1] / 1000 AS materialized_p50_ms,
    materialized[2] / 1000 AS materialized_p95_ms, materialized[3] / 1000 AS materialized_p99_ms
FROM
(
    SELECT start_hour AS hour, task, count() AS episodes,
        quantilesExactInclusive(0.5, 0.95, 0.99)(dateDiff('microsecond', ended_at, appended_at)) AS kafka,
        quantilesExactInclusive(0.5, 0.95, 0.99)(dateDiff('microsecond', appended_at, materialized_at)) AS materialized
    FROM episodes
    WHERE empty(labels)
    GROUP BY hour, task
)
COMMENT 'How long it took until episodes were stored, by the hour in which they began.';

-- A labelled revision is as old as its label: its times say nothing of how long the episode was under way.
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
        WHERE empty(labels)
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
COMMENT 'When each episode reached each stage, from its robot and back to it; but for those that were labelled since.';

CREATE OR REPLACE VIEW latency_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes began.',
    stage LowCardinality(String) COMMENT 'From and to, of: captured, kafka, materialized, seen (by the learner), published, active (on the robot).',
    episodes UInt64 COMMENT 'Episodes that got through the stage.',
    p50_ms Float64 COMMENT 'Median, milliseconds.',
    p95_ms Float64 COMMENT '95th percentile, milliseconds.',
    p99_ms Float64 COMMENT '99th percentile, milliseconds.'
) AS
SELECT hour, took.1 AS stage, took.2 AS episodes, took.3[1] / 1000 AS p50_ms, took.3[2] / 1000 AS p95_ms,
    took.3[3] / 1000 AS p99_ms
FROM
(
    WITH dateDiff('microsecond', captured_at, in_kafka_at) AS kafka,
        dateDiff('microsecond', in_kafka_at, materialized_at) AS materialized,
        dateDiff('microsecond', materialized_at, seen_at) AS seen,
        dateDiff('microsecond', seen_at, published_at) AS published,
        dateDiff('microsecond', published_at, active_at) AS active,
        dateDiff('microsecond', captured_at, active_at) AS whole
    SELECT hour, [
        ('captured_to_kafka', count(), quantilesExactInclusive(0.5, 0.95, 0.99)(kafka)),
        ('kafka_to_materialized', count(), quantilesExactInclusive(0.5, 0.95, 0.99)(materialized)),
        ('materialized_to_seen', count(seen), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(seen), seen IS NOT NULL)),
        ('seen_to_published', count(published), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(published), published IS NOT NULL)),
        ('published_to_active', count(active), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(active), active IS NOT NULL)),
        ('captured_to_active', count(whole), quantilesExactInclusiveIf(0.5, 0.95, 0.99)(assumeNotNull(whole), whole IS NOT NULL))
    ] AS stages
    FROM episode_latency
    GROUP BY hour
)
ARRAY JOIN stages AS took
WHERE took.2 > 0
COMMENT 'How long each stage took, from captured to active again, by the hour in which the episodes began.';

-- The sums by version are many groups of three keys; a dashboard of tasks needs twenty of one.
CREATE OR REPLACE VIEW human_effort_by_task
(
    task LowCardinality(String) COMMENT 'Short name of the task.',
    episodes UInt64 COMMENT 'Online episodes.',
    interventions UInt64 COMMENT 'Times that a human took over.',
    steps UInt64 COMMENT 'Control steps.',
    human_steps UInt64 COMMENT 'Steps whose action a human chose.',
    interventions_per_episode Float64 COMMENT 'interventions / episodes: the intervention rate.',
    human_share Nullable(Float64) COMMENT 'human_steps / steps.',
    mean_steps_between_interventions Nullable(Float64) COMMENT 'Steps of the policy for each intervention; NULL when there was none.'
) AS
SELECT task, episodes, interventions, steps, human_steps,
    interventions / episodes AS interventions_per_episode,
    human_steps / nullIf(steps, 0) AS human_share,
    (steps - human_steps) / nullIf(interventions, 0) AS mean_steps_between_interventions
FROM
(
    SELECT task, count() AS episodes, sum(intervention_count) AS interventions,
        sum(step_count) AS steps, sum(human_step_count) AS human_steps
    FROM episode_outcomes
    WHERE source = 'ONLINE'
    GROUP BY task
)
COMMENT 'How much the operators helped at each task.';

-- What is sorted is one number for each episode, time and outcome in one: a fifth of the time that tuples take. Of
-- episodes that ended together the failures come first, however they were inserted.
CREATE OR REPLACE VIEW time_to_success AS
WITH arraySort(coded) AS ended,
    arrayCumSum(arrayMap(e -> toUInt64(e % 2), ended)) AS wins,
    arrayResize(arrayConcat(arrayWithConstant({window:UInt32}, toUInt64(0)), wins), length(wins)) AS wins_before,
    arrayFirstIndex((now, before, i) -> i >= {window:UInt32} AND now - before >= {target:Float64} * {window:UInt32},
        wins, wins_before, arrayEnumerate(wins)) AS place,
    ended[place] AS last,
    fromUnixTimestamp64Micro(intDiv(last, 2), 'UTC') AS at
SELECT policy, task, first_started_at,
    if(place = 0, NULL, toNullable(at)) AS reached_at,
    if(place = 0, NULL, dateDiff('millisecond', first_started_at, at) / 1000) AS seconds,
    if(place = 0, NULL, arrayMax(arrayFilter((s, e) -> e = last, simulated, coded))) AS simulated_seconds,
    if(place = 0, NULL, toNullable(place)) AS episodes,
    if(place = 0, NULL, toNullable(arrayMax(arrayFilter((v, e) -> e = last, versions, coded)))) AS policy_version
FROM
(
    SELECT policy, task, min(started_at) AS first_started_at,
        groupArray(toUnixTimestamp64Micro(ended_at) * 2 + assumeNotNull(success)) AS coded,
        groupArray(policy_version) AS versions,
        groupArray(tuple(simulated_ended_at)).1 AS simulated
    FROM episode_outcomes
    WHERE source = 'ONLINE' AND success IS NOT NULL
    GROUP BY policy, task
)
COMMENT 'When each task first reached a target success rate: `target` (0 to 1) over the last `window` judged online episodes.
policy: Policy line.
task: Short name of the task.
first_started_at: Begin of its first judged online episode.
reached_at: End of the episode with which it was reached; NULL when it was not.
seconds: From first_started_at to reached_at, by the robots'' clocks.
simulated_seconds: Simulated time then, where time is simulated.
episodes: Judged online episodes until then.
policy_version: Newest version that was loaded in the last of them.';
