-- Sums over all that ever was, by task and version, answered from a few rows a day in place of every episode.
--
-- An additive materialized view would count what is inserted twice, and could not take back what a label changes. So a
-- day's sums are worked out anew, from its episodes as they are (`infra.clickhouse.summing`, which `sop index` runs),
-- and used only while nothing was inserted into the day since. Days of which that cannot be said are read as they are:
-- an answer is the same whether sums are there, are old, or are not there at all.

-- Days (of the hours in which episodes began), when rows of them were inserted last, and when they were summed last.
CREATE TABLE IF NOT EXISTS raw_outcome_days
(
    day Date,
    changed_at SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    summed_at SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY day;

CREATE MATERIALIZED VIEW IF NOT EXISTS outcome_days_feed TO raw_outcome_days AS
SELECT toDate(UUIDv7ToDateTime(episode_id, 'UTC'), 'UTC') AS day, now64(6, 'UTC') AS changed_at,
    toDateTime64(0, 6, 'UTC') AS summed_at
FROM raw_episodes
GROUP BY day;

INSERT INTO raw_outcome_days (day, changed_at, summed_at)
SELECT toDate(start_hour) AS day, now64(6, 'UTC'), toDateTime64(0, 6, 'UTC') FROM raw_episodes GROUP BY day;

-- A day's sums of a task are one row: what is worked out anew replaces all of it, groups that are no more included.
CREATE TABLE IF NOT EXISTS raw_outcome_sums
(
    task LowCardinality(String),
    day Date,
    summed_at DateTime64(6, 'UTC'),
    sums Array(Tuple(policy LowCardinality(String), policy_version Int64,
        source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3), episodes UInt64, judged UInt64,
        successes UInt64, autonomous_successes UInt64, interventions UInt64, steps UInt64, human_steps UInt64,
        taken_over UInt64, taken_over_judged UInt64, recovered UInt64, taken_over_human_steps UInt64))
)
ENGINE = ReplacingMergeTree(summed_at)
ORDER BY (task, day);

CREATE OR REPLACE VIEW outcome_days
(
    day Date COMMENT 'Day on which the episodes began.',
    changed_at DateTime64(6, 'UTC') COMMENT 'When rows of it were inserted last.',
    summed_at DateTime64(6, 'UTC') COMMENT 'When its sums were worked out last; 1970 for never.',
    summed Bool COMMENT 'Whether its sums are as its episodes are. Where not, its episodes are read.'
) AS
SELECT day, max(raw.changed_at) AS changed_at, max(raw.summed_at) AS summed_at,
    CAST(summed_at > changed_at, 'Bool') AS summed
FROM raw_outcome_days AS raw
GROUP BY day
COMMENT 'Days with episodes, and whether sums of them are at hand.';

-- Both halves name the same set of days, which is made once for a query: no day is in both, and none in neither.
CREATE OR REPLACE VIEW outcome_sums
(
    task LowCardinality(String) COMMENT 'Short name of the task.',
    day Date COMMENT 'Day on which the episodes began.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during them; 0 for none.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why they were recorded.',
    episodes UInt64 COMMENT 'Episodes, however they ended; but for those that a label excludes.',
    judged UInt64 COMMENT 'Those of which success is known.',
    successes UInt64 COMMENT 'Those that succeeded.',
    autonomous_successes UInt64 COMMENT 'Those that succeeded without any human action.',
    interventions UInt64 COMMENT 'Times that a human took over.',
    steps UInt64 COMMENT 'Control steps.',
    human_steps UInt64 COMMENT 'Steps whose action a human chose.',
    taken_over UInt64 COMMENT 'Episodes in which a human took over.',
    taken_over_judged UInt64 COMMENT 'Those of which success is known.',
    recovered UInt64 COMMENT 'Those that succeeded all the same.',
    taken_over_human_steps UInt64 COMMENT 'Steps that humans took in them.'
) AS
SELECT task, day, one.policy AS policy, one.policy_version AS policy_version, one.source AS source,
    one.episodes AS episodes, one.judged AS judged, one.successes AS successes,
    one.autonomous_successes AS autonomous_successes, one.interventions AS interventions, one.steps AS steps,
    one.human_steps AS human_steps, one.taken_over AS taken_over, one.taken_over_judged AS taken_over_judged,
    one.recovered AS recovered, one.taken_over_human_steps AS taken_over_human_steps
FROM (SELECT task, day, sums FROM raw_outcome_sums FINAL)
ARRAY JOIN sums AS one
WHERE day NOT IN (SELECT day FROM outcome_days WHERE NOT summed)
UNION ALL
SELECT task, toDate(start_hour) AS day, policy, policy_version, source, count() AS episodes, count(success) AS judged,
    countIf(ifNull(success, false)) AS successes, countIf(ifNull(success, false) AND human_step_count = 0) AS autonomous_successes,
    sum(intervention_count) AS interventions, sum(step_count) AS steps, sum(human_step_count) AS human_steps,
    countIf(intervention_count > 0) AS taken_over, countIf(success IS NOT NULL AND intervention_count > 0) AS taken_over_judged,
    countIf(ifNull(success, false) AND intervention_count > 0) AS recovered,
    sumIf(human_step_count, intervention_count > 0) AS taken_over_human_steps
FROM episodes
WHERE NOT excluded AND toDate(start_hour) IN (SELECT day FROM outcome_days WHERE NOT summed)
GROUP BY task, day, policy, policy_version, source
COMMENT 'Episodes, successes and help by day, task and version: what the sums over all time are made of.';

CREATE OR REPLACE VIEW success_by_task
(
    task LowCardinality(String) COMMENT 'Short name of the task.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why the episodes were recorded.',
    episodes UInt64 COMMENT 'Episodes, however they ended.',
    judged UInt64 COMMENT 'Those of which success is known.',
    successes UInt64 COMMENT 'Those that succeeded.',
    autonomous_successes UInt64 COMMENT 'Those that succeeded without any human action.',
    success_rate Nullable(Float64) COMMENT 'successes / judged.',
    success_low Nullable(Float64) COMMENT 'Lower end of its 95 % Wilson interval.',
    success_high Nullable(Float64) COMMENT 'Upper end of its 95 % Wilson interval.'
) AS
WITH 1.959963984540054 AS z, successes AS k, nullIf(judged, 0) AS n
SELECT task, source, episodes, judged, successes, autonomous_successes,
    k / n AS success_rate,
    (k + z * z / 2 - z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_low,
    (k + z * z / 2 + z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_high
FROM
(
    SELECT task, source, sum(s.episodes) AS episodes, sum(s.judged) AS judged, sum(s.successes) AS successes,
        sum(s.autonomous_successes) AS autonomous_successes
    FROM outcome_sums AS s
    GROUP BY task, source
)
COMMENT 'Success of each task, with its interval.';

CREATE OR REPLACE VIEW success_by_policy_version
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during the episodes; 0 for none.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why the episodes were recorded.',
    episodes UInt64 COMMENT 'Episodes, however they ended.',
    judged UInt64 COMMENT 'Those of which success is known.',
    successes UInt64 COMMENT 'Those that succeeded.',
    autonomous_successes UInt64 COMMENT 'Those that succeeded without any human action.',
    success_rate Nullable(Float64) COMMENT 'successes / judged.',
    success_low Nullable(Float64) COMMENT 'Lower end of its 95 % Wilson interval.',
    success_high Nullable(Float64) COMMENT 'Upper end of its 95 % Wilson interval.'
) AS
WITH 1.959963984540054 AS z, successes AS k, nullIf(judged, 0) AS n
SELECT policy, policy_version, task, source, episodes, judged, successes, autonomous_successes,
    k / n AS success_rate,
    (k + z * z / 2 - z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_low,
    (k + z * z / 2 + z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_high
FROM
(
    SELECT policy, policy_version, task, source, sum(s.episodes) AS episodes, sum(s.judged) AS judged, sum(s.successes) AS successes,
        sum(s.autonomous_successes) AS autonomous_successes
    FROM outcome_sums AS s
    GROUP BY policy, policy_version, task, source
)
COMMENT 'Success of each policy version at each task, with its interval.';

CREATE OR REPLACE VIEW human_effort
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during the episodes.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    episodes UInt64 COMMENT 'Online episodes.',
    interventions UInt64 COMMENT 'Times that a human took over.',
    steps UInt64 COMMENT 'Control steps.',
    human_steps UInt64 COMMENT 'Steps whose action a human chose.',
    interventions_per_episode Float64 COMMENT 'interventions / episodes: the intervention rate.',
    human_share Nullable(Float64) COMMENT 'human_steps / steps.',
    mean_steps_between_interventions Nullable(Float64) COMMENT 'Steps of the policy for each intervention; NULL when there was none.'
) AS
SELECT policy, policy_version, task, episodes, interventions, steps, human_steps,
    interventions / episodes AS interventions_per_episode,
    human_steps / nullIf(steps, 0) AS human_share,
    (steps - human_steps) / nullIf(interventions, 0) AS mean_steps_between_interventions
FROM
(
    SELECT policy, policy_version, task, sum(s.episodes) AS episodes, sum(s.interventions) AS interventions,
        sum(s.steps) AS steps, sum(s.human_steps) AS human_steps
    FROM outcome_sums AS s
    WHERE source = 'ONLINE'
    GROUP BY policy, policy_version, task
)
COMMENT 'How much the operators helped each policy version at each task.';

CREATE OR REPLACE VIEW return_on_human_effort
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Version.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    judged UInt64 COMMENT 'Its online episodes of which success is known.',
    autonomous_success_rate Float64 COMMENT 'Share of those that succeeded without any human action.',
    human_steps_before UInt64 COMMENT 'Steps that humans took in online episodes of earlier versions at this task, judged or not. Demonstrations are not in it.',
    gain_points Float64 COMMENT 'Percentage points of autonomous_success_rate above that of the first version that was judged at this task.',
    points_per_1000_human_steps Nullable(Float64) COMMENT 'gain_points for each 1,000 of human_steps_before: the return. NULL before any help.'
) AS
SELECT policy, policy_version, task, judged, autonomous / judged AS autonomous_success_rate,
    before AS human_steps_before,
    100 * (autonomous_success_rate - first_rate) AS gain_points,
    gain_points / nullIf(before, 0) * 1000 AS points_per_1000_human_steps
FROM
(
    SELECT policy, policy_version, task, judged, autonomous,
        sum(human_steps) OVER (PARTITION BY policy, task ORDER BY policy_version) - human_steps AS before,
        argMinIf(autonomous / judged, policy_version, judged > 0) OVER (PARTITION BY policy, task) AS first_rate
    FROM
    (
        SELECT policy, policy_version, task, sum(s.judged) AS judged, sum(s.human_steps) AS human_steps,
            sum(s.autonomous_successes) AS autonomous
        FROM outcome_sums AS s
        WHERE source = 'ONLINE'
        GROUP BY policy, policy_version, task
    )
)
WHERE judged > 0
COMMENT 'What the fleet gained in autonomous success for the help that its operators gave.';

CREATE OR REPLACE VIEW recoveries
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during the episodes.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    taken_over UInt64 COMMENT 'Online episodes in which a human took over.',
    judged UInt64 COMMENT 'Those of which success is known.',
    recovered UInt64 COMMENT 'Those that succeeded all the same.',
    recovery_rate Nullable(Float64) COMMENT 'recovered / judged.',
    recovery_low Nullable(Float64) COMMENT 'Lower end of its 95 % Wilson interval.',
    recovery_high Nullable(Float64) COMMENT 'Upper end of its 95 % Wilson interval.',
    human_steps_per_episode Nullable(Float64) COMMENT 'Steps that humans took in each of them.'
) AS
WITH 1.959963984540054 AS z, recovered AS k, nullIf(judged, 0) AS n
SELECT policy, policy_version, task, taken_over, judged, recovered,
    k / n AS recovery_rate,
    (k + z * z / 2 - z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS recovery_low,
    (k + z * z / 2 + z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS recovery_high,
    human_steps / taken_over AS human_steps_per_episode
FROM
(
    SELECT policy, policy_version, task, sum(s.taken_over) AS taken_over, sum(s.taken_over_judged) AS judged,
        sum(s.recovered) AS recovered, sum(s.taken_over_human_steps) AS human_steps
    FROM outcome_sums AS s
    WHERE source = 'ONLINE'
    GROUP BY policy, policy_version, task
    HAVING taken_over > 0
)
COMMENT 'Episodes that succeeded after a human had taken over.';
