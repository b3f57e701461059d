-- Help is told apart from what the policy can do, and what a label leaves out is left out everywhere.

-- An intervention counts, or not, as its episode does. Rows from before take both from there; most are online ones, as
-- the columns' defaults say.
ALTER TABLE raw_interventions
    ADD COLUMN IF NOT EXISTS source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3),
    ADD COLUMN IF NOT EXISTS excluded Bool;

INSERT INTO raw_interventions
    (episode_id, intervention_id, revision, robot_id, task, operator, reason, first_step, last_step, began_at, ended_at,
    source, excluded)
SELECT episode_id, intervention_id, revision, robot_id, task, operator, reason, first_step, last_step, began_at, ended_at,
    of.source, of.excluded
FROM raw_interventions AS i FINAL
INNER JOIN
(
    SELECT episode_id, source, excluded FROM raw_episodes FINAL
    WHERE intervention_count > 0 AND (source != 'ONLINE' OR excluded)
) AS of ON i.episode_id = of.episode_id;

-- Panels ask for the last hours: this spares them the other months.
ALTER TABLE raw_interventions ADD INDEX IF NOT EXISTS by_begin began_at TYPE minmax GRANULARITY 1;

CREATE OR REPLACE VIEW interventions
(
    episode_id UUID COMMENT 'Episode that it happened in.',
    intervention_id UUID COMMENT 'UUIDv7 of the takeover.',
    revision UInt32 COMMENT 'Revision of the episode that says so.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    task LowCardinality(String) COMMENT 'Task of the episode.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why the episode was recorded.',
    excluded Bool COMMENT 'Whether a label leaves the episode out; what is counted is counted WHERE NOT excluded.',
    operator LowCardinality(String) COMMENT 'Who took over.',
    reason LowCardinality(String) COMMENT 'Why, in the operator''s words.',
    first_step Int32 COMMENT 'First step index under human control.',
    last_step Nullable(Int32) COMMENT 'Last step index under human control; NULL when its end is unknown.',
    began_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End, by the robot''s clock; NULL when unknown.'
) AS
SELECT episode_id, intervention_id, revision, robot_id, task, source, excluded, operator, reason, first_step, last_step,
    began_at, ended_at
FROM raw_interventions FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each time that a human took over.';

-- The sum runs over every version, judged or not: what humans did for a version that nobody judged helped the later
-- ones no less.
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
        SELECT policy, policy_version, task, count(success) AS judged, sum(human_step_count) AS human_steps,
            countIf(success = 1 AND autonomous) AS autonomous
        FROM episode_outcomes
        WHERE source = 'ONLINE'
        GROUP BY policy, policy_version, task
    )
)
WHERE judged > 0
COMMENT 'What the fleet gained in autonomous success for the help that its operators gave.';

-- A success counts if the policy had it alone: an operator who rescues every episode would reach any target on the
-- first day. An episode with help is one that the policy did not do.
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
        groupArray(toUnixTimestamp64Micro(ended_at) * 2 + (assumeNotNull(success) AND autonomous)) AS coded,
        groupArray(policy_version) AS versions,
        groupArray(tuple(simulated_ended_at)).1 AS simulated
    FROM episode_outcomes
    WHERE source = 'ONLINE' AND success IS NOT NULL
    GROUP BY policy, task
)
COMMENT 'When the policy alone first reached a target success rate at each task: `target` (0 to 1) over the last `window` judged online episodes, of which those that a human helped are no success.
policy: Policy line.
task: Short name of the task.
first_started_at: Begin of its first judged online episode.
reached_at: End of the episode with which it was reached; NULL when it was not.
seconds: From first_started_at to reached_at, by the robots'' clocks.
simulated_seconds: Simulated time then, where time is simulated.
episodes: Judged online episodes until then.
policy_version: Newest version that was loaded in the last of them.';
