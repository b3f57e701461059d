-- What humans put in, and what came of it.

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
    SELECT policy, policy_version, task, count() AS episodes, sum(intervention_count) AS interventions,
        sum(step_count) AS steps, sum(human_step_count) AS human_steps
    FROM episode_outcomes
    WHERE source = 'ONLINE'
    GROUP BY policy, policy_version, task
)
COMMENT 'How much the operators helped each policy version at each task.';

CREATE OR REPLACE VIEW human_effort_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    episodes UInt64 COMMENT 'Online episodes.',
    interventions UInt64 COMMENT 'Times that a human took over.',
    steps UInt64 COMMENT 'Control steps.',
    human_steps UInt64 COMMENT 'Steps whose action a human chose.',
    interventions_per_episode Float64 COMMENT 'interventions / episodes: the intervention rate.',
    human_share Nullable(Float64) COMMENT 'human_steps / steps.',
    mean_steps_between_interventions Nullable(Float64) COMMENT 'Steps of the policy for each intervention; NULL when there was none.'
) AS
SELECT hour, task, episodes, interventions, steps, human_steps,
    interventions / episodes AS interventions_per_episode,
    human_steps / nullIf(steps, 0) AS human_share,
    (steps - human_steps) / nullIf(interventions, 0) AS mean_steps_between_interventions
FROM
(
    SELECT hour, task, count() AS episodes, sum(intervention_count) AS interventions,
        sum(step_count) AS steps, sum(human_step_count) AS human_steps
    FROM episode_outcomes
    WHERE source = 'ONLINE'
    GROUP BY hour, task
)
COMMENT 'How much the operators helped in each hour.';

-- An episode is credited to the version that acted in it, the help to all versions after the one that got it.
CREATE OR REPLACE VIEW return_on_human_effort
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Version.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    judged UInt64 COMMENT 'Its online episodes of which success is known.',
    autonomous_success_rate Float64 COMMENT 'Share of those that succeeded without any human action.',
    human_steps_before UInt64 COMMENT 'Steps that humans took in online episodes of earlier versions at this task. Demonstrations are not in it.',
    gain_points Float64 COMMENT 'Percentage points of autonomous_success_rate above that of the first version that was judged at this task.',
    points_per_1000_human_steps Nullable(Float64) COMMENT 'gain_points for each 1,000 of human_steps_before: the return. NULL before any help.'
) AS
SELECT policy, policy_version, task, judged, rate AS autonomous_success_rate, before AS human_steps_before,
    100 * (rate - first_rate) AS gain_points,
    100 * (rate - first_rate) / nullIf(before, 0) * 1000 AS points_per_1000_human_steps
FROM
(
    SELECT policy, policy_version, task, judged, human_steps, autonomous / judged AS rate,
        sum(human_steps) OVER (PARTITION BY policy, task ORDER BY policy_version) - human_steps AS before,
        first_value(autonomous / judged) OVER (PARTITION BY policy, task ORDER BY policy_version) AS first_rate
    FROM
    (
        SELECT policy, policy_version, task, count(success) AS judged, sum(human_step_count) AS human_steps,
            countIf(success = 1 AND autonomous) AS autonomous
        FROM episode_outcomes
        WHERE source = 'ONLINE'
        GROUP BY policy, policy_version, task
        HAVING judged > 0
    )
)
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
    SELECT policy, policy_version, task, count() AS taken_over, count(success) AS judged,
        countIf(success = 1) AS recovered, sum(human_step_count) AS human_steps
    FROM episode_outcomes
    WHERE source = 'ONLINE' AND intervention_count > 0
    GROUP BY policy, policy_version, task
)
COMMENT 'Episodes that succeeded after a human had taken over.';

-- Whole tuples are sorted, so that episodes which ended together come in one order, however they were inserted.
CREATE OR REPLACE VIEW time_to_success AS
WITH arrayCumSum(arrayMap(e -> toUInt64(ifNull(e.2, 0)), ended)) AS wins,
    arrayResize(arrayConcat(arrayWithConstant({window:UInt32}, toUInt64(0)), wins), length(wins)) AS wins_before,
    arrayFirstIndex((now, before, i) -> i >= {window:UInt32} AND now - before >= {target:Float64} * {window:UInt32},
        wins, wins_before, arrayEnumerate(wins)) AS place
SELECT policy, task, first_started_at,
    if(place = 0, NULL, toNullable(ended[place].1)) AS reached_at,
    if(place = 0, NULL, dateDiff('millisecond', first_started_at, ended[place].1) / 1000) AS seconds,
    if(place = 0, NULL, ended[place].4) AS simulated_seconds,
    if(place = 0, NULL, toNullable(place)) AS episodes,
    if(place = 0, NULL, toNullable(ended[place].3)) AS policy_version
FROM
(
    SELECT policy, task, min(started_at) AS first_started_at,
        arraySort(groupArray((ended_at, success, policy_version, simulated_ended_at))) AS ended
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
