-- How well it goes. Intervals are Wilson's at 95 %: with k successes of n and z = 1.96,
-- (k + z²/2 ± z √(k (n − k) / n + z²/4)) / (n + z²)  (Wilson 1927). Rates of no episode are NULL.

CREATE OR REPLACE VIEW episode_outcomes
(
    episode_id UUID COMMENT 'Episode.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    robot_id LowCardinality(String) COMMENT 'Robot that recorded it.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why it was recorded.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    policy_version Int64 COMMENT 'Newest version that was loaded during it; 0 for none.',
    end Enum8('TERMINATED' = 1, 'TRUNCATED' = 2, 'ABORTED' = 3) COMMENT 'How it ended.',
    success Nullable(UInt8) COMMENT '1, 0, or NULL when nobody knows.',
    autonomous Bool COMMENT 'Whether no human chose any action.',
    step_count UInt32 COMMENT 'Control steps.',
    human_step_count UInt32 COMMENT 'Steps whose action a human chose.',
    intervention_count UInt32 COMMENT 'Times that a human took over.',
    reward_sum Float64 COMMENT 'Sum of the steps'' rewards.',
    control_seconds Float64 COMMENT 'Time under control: steps divided by the control rate. Resets are not in it.',
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which it ended.',
    started_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at DateTime64(6, 'UTC') COMMENT 'End, by the robot''s clock.',
    simulated_ended_at Nullable(Float64) COMMENT 'Simulated seconds at its end, where time is simulated.'
) AS
SELECT
    episode_id,
    task,
    robot_id,
    source,
    policy,
    policy_version,
    end,
    CAST(success, 'Nullable(UInt8)') AS success,
    human_step_count = 0 AS autonomous,
    step_count,
    human_step_count,
    intervention_count,
    reward_sum,
    if(fps > 0, step_count / fps, 0) AS control_seconds,
    end_hour AS hour,
    started_at,
    ended_at,
    simulated_ended_at
FROM episodes
COMMENT 'How each episode went.';

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
    SELECT task, source, count() AS episodes, count(success) AS judged, countIf(success = 1) AS successes,
        countIf(success = 1 AND autonomous) AS autonomous_successes
    FROM episode_outcomes
    GROUP BY task, source
)
COMMENT 'Success of each task, with its interval.';

CREATE OR REPLACE VIEW success_by_robot
(
    robot_id LowCardinality(String) COMMENT 'Robot.',
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
SELECT robot_id, task, source, episodes, judged, successes, autonomous_successes,
    k / n AS success_rate,
    (k + z * z / 2 - z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_low,
    (k + z * z / 2 + z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_high
FROM
(
    SELECT robot_id, task, source, count() AS episodes, count(success) AS judged, countIf(success = 1) AS successes,
        countIf(success = 1 AND autonomous) AS autonomous_successes
    FROM episode_outcomes
    GROUP BY robot_id, task, source
)
COMMENT 'Success of each robot at each task, with its interval.';

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
    SELECT policy, policy_version, task, source, count() AS episodes, count(success) AS judged,
        countIf(success = 1) AS successes, countIf(success = 1 AND autonomous) AS autonomous_successes
    FROM episode_outcomes
    GROUP BY policy, policy_version, task, source
)
COMMENT 'Success of each policy version at each task, with its interval.';

CREATE OR REPLACE VIEW success_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
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
SELECT hour, task, source, episodes, judged, successes, autonomous_successes,
    k / n AS success_rate,
    (k + z * z / 2 - z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_low,
    (k + z * z / 2 + z * sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z) AS success_high
FROM
(
    SELECT hour, task, source, count() AS episodes, count(success) AS judged, countIf(success = 1) AS successes,
        countIf(success = 1 AND autonomous) AS autonomous_successes
    FROM episode_outcomes
    GROUP BY hour, task, source
)
COMMENT 'Success of each hour at each task, with its interval.';

CREATE OR REPLACE VIEW throughput_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    task LowCardinality(String) COMMENT 'Short name of the task.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why the episodes were recorded.',
    robots UInt64 COMMENT 'Robots that ended any.',
    terminated UInt64 COMMENT 'Episodes that ended by themselves.',
    successes UInt64 COMMENT 'Episodes that succeeded.',
    control_hours Float64 COMMENT 'Time under control of all episodes, of all robots together; resets are not in it.',
    terminated_per_hour Nullable(Float64) COMMENT 'terminated / control_hours: what one robot gets through in an hour without resets.',
    successes_per_hour Nullable(Float64) COMMENT 'successes / control_hours.'
) AS
SELECT hour, task, source, robots, terminated, successes, control_hours,
    terminated / nullIf(control_hours, 0) AS terminated_per_hour,
    successes / nullIf(control_hours, 0) AS successes_per_hour
FROM
(
    SELECT hour, task, source, uniqExact(robot_id) AS robots, countIf(end = 'TERMINATED') AS terminated,
        countIf(success = 1) AS successes, sum(control_seconds) / 3600 AS control_hours
    FROM episode_outcomes
    GROUP BY hour, task, source
)
COMMENT 'Terminated and successful episodes per hour, resets excluded (both are called throughput elsewhere).';
