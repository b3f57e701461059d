-- Where versions come from, and what is wrong with the data.

-- Episodes are looked up by the ids of the one version: a join with all of them would read all of them.
CREATE OR REPLACE VIEW lineage_of_version AS
SELECT drawn.episode_id AS episode_id, drawn.revision AS revision, drawn.draws AS draws,
    drawn.draws / sum(drawn.draws) OVER () AS share, task, robot_id, source, success, human_step_count, started_at
FROM
(
    SELECT * FROM raw_training_lineage FINAL
    WHERE policy = {policy:String} AND version = {version:Int64} AND reported_at =
    (
        SELECT max(reported_at) FROM raw_training_lineage
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS drawn
LEFT JOIN
(
    SELECT episode_id, task, robot_id, source, success, human_step_count, started_at
    FROM episodes
    WHERE episode_id IN
    (
        SELECT episode_id FROM raw_training_lineage
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS e ON drawn.episode_id = e.episode_id
COMMENT 'The episodes that made version `version` of line `policy`, and how often each was drawn since the version before.
episode_id: Episode.
revision: Its revision at that time.
draws: Samples drawn from it.
share: Share of all draws.
task: Short name of the task.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';

CREATE OR REPLACE VIEW lineage_of_episode AS
SELECT touched.policy AS policy, touched.version AS version, touched.how AS how, touched.draws AS draws,
    versions.published_at AS published_at
FROM
(
    SELECT policy, version, 'trained' AS how, toNullable(sum(lineage.draws)) AS draws
    FROM training_lineage AS lineage
    WHERE episode_id = {episode_id:UUID}
    GROUP BY policy, version
    UNION ALL
    SELECT policy, arrayJoin(policy_versions) AS version, 'acted' AS how, NULL AS draws
    FROM episodes
    WHERE episode_id = {episode_id:UUID}
) AS touched
LEFT JOIN (SELECT policy, version, toNullable(published_at) AS published_at FROM policy_versions) AS versions
    ON touched.policy = versions.policy AND touched.version = versions.version
COMMENT 'The policy versions that episode `episode_id` touched.
policy: Policy line.
version: Version.
how: acted: it was loaded during the episode; trained: it was made from the episode.
draws: Samples drawn from the episode for it; NULL where it acted.
published_at: When it was published; NULL when that is unknown.';

CREATE OR REPLACE VIEW data_quality_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    episodes UInt64 COMMENT 'Episodes, however they ended.',
    truncated UInt64 COMMENT 'Those that were cut short.',
    aborted UInt64 COMMENT 'Those that were given up after a crash.',
    timed_out UInt64 COMMENT 'Those that silence closed.',
    unjudged UInt64 COMMENT 'Those of which success is unknown.',
    revised UInt64 COMMENT 'Those with more than one revision: events came after they had been closed.',
    with_gaps UInt64 COMMENT 'Those with missing events.',
    missing_events UInt64 COMMENT 'Events that never arrived; a dropped step is one.',
    rejected_events UInt64 COMMENT 'Events that are dead letters.',
    without_steps UInt64 COMMENT 'Those without a single step.'
) AS
SELECT end_hour AS hour, robot_id, count() AS episodes,
    countIf(end = 'TRUNCATED') AS truncated, countIf(end = 'ABORTED') AS aborted,
    countIf(closed_by = 'TIMEOUT') AS timed_out, countIf(success IS NULL) AS unjudged,
    countIf(revision > 1) AS revised, countIf(missing_count > 0) AS with_gaps,
    sum(missing_count) AS missing_events, sum(rejected_count) AS rejected_events,
    countIf(step_count = 0) AS without_steps
FROM episodes
GROUP BY hour, robot_id
COMMENT 'What is wrong with the episodes of each robot, by hour.';

CREATE OR REPLACE VIEW dead_letters_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which they were put on dead-letters.',
    topic LowCardinality(String) COMMENT 'Topic that they were on.',
    reason LowCardinality(String) COMMENT 'Why they cannot be used.',
    letters UInt64 COMMENT 'Records.',
    robots UInt64 COMMENT 'Robots that sent them.',
    example String COMMENT 'What is wrong with one of them, in words.'
) AS
SELECT toDateTime64(toStartOfHour(appended_at), 0, 'UTC') AS hour, topic, reason, count() AS letters,
    uniqExact(robot_id) AS robots, min(error) AS example
FROM dead_letters
GROUP BY hour, topic, reason
COMMENT 'Records that could not be used, counted by hour and reason.';

CREATE OR REPLACE VIEW robot_health_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour of the heartbeats, by the robot''s clock.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    heartbeats UInt64 COMMENT 'Heartbeats.',
    boots UInt64 COMMENT 'Starts of its client that they are from.',
    with_errors UInt64 COMMENT 'Those that told of an error.',
    max_spool_depth Int64 COMMENT 'Most events that waited for Kafka.',
    max_spool_age_seconds Float64 COMMENT 'Longest that one had waited.',
    mean_clock_offset_seconds Nullable(Float64) COMMENT 'The broker''s clock minus its own; NULL when unknown.',
    max_abs_clock_offset_seconds Nullable(Float64) COMMENT 'Largest of those, either way.'
) AS
SELECT toDateTime64(toStartOfHour(reported_at), 0, 'UTC') AS hour, robot_id, count() AS heartbeats,
    uniqExact(boot_epoch) AS boots, countIf(notEmpty(errors)) AS with_errors,
    max(spool_depth) AS max_spool_depth, max(spool_age_seconds) AS max_spool_age_seconds,
    avg(clock_offset_seconds) AS mean_clock_offset_seconds,
    max(abs(clock_offset_seconds)) AS max_abs_clock_offset_seconds
FROM raw_robot_status FINAL
GROUP BY hour, robot_id
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Spools, errors and clocks of the robots, by hour.';
