-- What is reached exactly is reached, and what is not known is not made up.

-- A share is compared with the target: the target times the window may lie above a whole number that it stands for, as
-- 0.55 * 100 = 55.00000000000001.
CREATE OR REPLACE VIEW time_to_success AS
WITH arraySort(coded) AS ended,
    arrayCumSum(arrayMap(e -> toUInt64(e % 2), ended)) AS wins,
    arrayResize(arrayConcat(arrayWithConstant({window:UInt32}, toUInt64(0)), wins), length(wins)) AS wins_before,
    arrayFirstIndex((now, before, i) -> i >= {window:UInt32} AND (now - before) / {window:UInt32} >= {target:Float64},
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

-- An episode may have been drawn whose row is gone, or has not come yet. A join that finds nothing fills in the first of
-- what a column can hold: ONLINE, of 1970, not excluded.
CREATE OR REPLACE VIEW lineage_of_version AS
SELECT drawn.episode_id AS episode_id, drawn.revision AS revision, drawn.draws AS draws,
    drawn.draws / sum(drawn.draws) OVER () AS share, task, robot_id, source, success, excluded, human_step_count,
    started_at
FROM
(
    SELECT * FROM raw_training_lineage FINAL
    WHERE policy = {policy:String} AND version = {version:Int64} AND reported_at =
    (
        SELECT max(reported_at) FROM raw_training_reports
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS drawn
LEFT JOIN
(
    SELECT episode_id, toNullable(task) AS task, toNullable(robot_id) AS robot_id, toNullable(source) AS source, success,
        toNullable(excluded) AS excluded, toNullable(human_step_count) AS human_step_count,
        toNullable(started_at) AS started_at
    FROM episodes
    WHERE episode_id IN
    (
        SELECT episode_id FROM raw_training_lineage
        WHERE policy = {policy:String} AND version = {version:Int64}
    )
) AS e ON drawn.episode_id = e.episode_id
COMMENT 'The episodes that made version `version` of line `policy`, and how often each was drawn since the version before. `lineage_to_version` goes on through its ancestors.
episode_id: Episode.
revision: Its revision at that time.
draws: Samples drawn from it.
share: Share of all draws.
task: Short name of the task; NULL, as is all that follows, where no row tells of the episode.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
excluded: Whether a label leaves it out of training by now.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';

CREATE OR REPLACE VIEW lineage_to_version AS
SELECT drawn.episode_id AS episode_id, drawn.versions AS versions, drawn.first_version AS first_version,
    drawn.last_version AS last_version, drawn.draws AS draws, drawn.draws / sum(drawn.draws) OVER () AS share, task,
    robot_id, source, success, excluded, human_step_count, started_at
FROM
(
    SELECT episode_id, uniqExact(version) AS versions, min(version) AS first_version, max(version) AS last_version,
        sum(lineage.draws) AS draws
    FROM raw_training_lineage AS lineage FINAL
    WHERE policy = {policy:String} AND version <= {version:Int64} AND (version, reported_at) IN
    (
        SELECT version, reported_at FROM raw_training_reports FINAL
        WHERE policy = {policy:String} AND version IN
        (
            SELECT arrayJoin(arrayFold(
                (found, one) -> if(one.1 = found.1, (one.2, arrayPushBack(found.2, one.1)), found),
                arrayReverseSort(groupArray((version, ifNull(parent_version, toInt64(-1))))),
                (toInt64({version:Int64}), CAST([], 'Array(Int64)'))).2)
            FROM policy_versions
            WHERE policy = {policy:String} AND version <= {version:Int64}
        )
    )
    GROUP BY episode_id
) AS drawn
LEFT JOIN
(
    SELECT episode_id, toNullable(task) AS task, toNullable(robot_id) AS robot_id, toNullable(source) AS source, success,
        toNullable(excluded) AS excluded, toNullable(human_step_count) AS human_step_count,
        toNullable(started_at) AS started_at
    FROM episodes
    WHERE episode_id IN
    (
        SELECT episode_id FROM raw_training_lineage
        WHERE policy = {policy:String} AND version <= {version:Int64}
    )
) AS e ON drawn.episode_id = e.episode_id
COMMENT 'The episodes that made version `version` of line `policy` and all versions that it descends from.
episode_id: Episode.
versions: Versions that drew from it.
first_version: First of those.
last_version: Last of those.
draws: Samples drawn from it, for all of them together.
share: Share of all draws.
task: Short name of the task; NULL, as is all that follows, where no row tells of the episode.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
excluded: Whether a label leaves it out of training by now.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';

-- Said, and not counted: how far behind a version was that acted before the first was published is a question of clocks.
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
COMMENT 'How old the policy was that acted in each online episode; but for those that began, by the robot''s clock, before anything of their line was published.';

CREATE OR REPLACE VIEW staleness_by_hour
(
    hour DateTime64(0, 'UTC') COMMENT 'Hour in which the episodes ended.',
    policy LowCardinality(String) COMMENT 'Policy line.',
    episodes UInt64 COMMENT 'Online episodes that policy_staleness has.',
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

-- A repair of rows that was killed may have left sums as they were before it: all days are read until they are summed again.
INSERT INTO raw_outcome_days (day, changed_at, summed_at)
SELECT day, now64(6, 'UTC') AS changed_at, toDateTime64(0, 6, 'UTC') AS summed_at FROM raw_outcome_days GROUP BY day;
