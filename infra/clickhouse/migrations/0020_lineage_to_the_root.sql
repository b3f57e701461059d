-- Where versions come from, all the way back.

-- When each version's draws were told last: a learner that was killed tells them again, and only the newest report counts.
-- One row a version, in place of a look at all the draws of all versions.
CREATE TABLE IF NOT EXISTS raw_training_reports
(
    policy LowCardinality(String),
    version Int64,
    reported_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(reported_at)
ORDER BY (policy, version);

CREATE MATERIALIZED VIEW IF NOT EXISTS training_reports_feed TO raw_training_reports AS
SELECT policy, version, max(told.reported_at) AS reported_at
FROM raw_training_lineage AS told
GROUP BY policy, version;

-- After the feed, so that nothing falls between.
INSERT INTO raw_training_reports (policy, version, reported_at)
SELECT policy, version, max(told.reported_at) AS reported_at
FROM raw_training_lineage AS told
GROUP BY policy, version;

CREATE OR REPLACE VIEW training_reports
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    version Int64 COMMENT 'Version.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the learner told, for the last time, what it had drawn for it.'
) AS
SELECT policy, version, reported_at FROM raw_training_reports FINAL
COMMENT 'Versions of which it is known what they were made from.';

CREATE OR REPLACE VIEW training_lineage
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    version Int64 COMMENT 'Version that the draws led to.',
    episode_id UUID COMMENT 'Episode that was drawn from.',
    revision UInt32 COMMENT 'Its revision at that time.',
    draws UInt64 COMMENT 'Samples drawn from it between the version before and this one.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the learner said so, by its clock.'
) AS
SELECT * FROM raw_training_lineage FINAL
WHERE (policy, version, reported_at) IN
(
    SELECT policy, version, reported_at FROM raw_training_reports FINAL
)
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Which episodes made a policy version, and how often each was drawn.';

-- Episodes are looked up by the ids of the one version: a join with all of them would read all of them.
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
    SELECT episode_id, task, robot_id, source, success, excluded, human_step_count, started_at
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
task: Short name of the task.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
excluded: Whether a label leaves it out of training by now.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';

-- A version is its parent, trained further: what made it are the draws of all its ancestors. After a rollback the parent
-- is not the version before. A parent has a smaller number, so that one pass from the version down finds them all.
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
    SELECT episode_id, task, robot_id, source, success, excluded, human_step_count, started_at
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
task: Short name of the task.
robot_id: Robot that recorded it.
source: Why it was recorded.
success: 1, 0, or NULL when nobody knows.
excluded: Whether a label leaves it out of training by now.
human_step_count: Steps whose action a human chose.
started_at: Begin, by the robot''s clock.';

-- An episode's draws are found by its id; its few rows need no FINAL, as those of one report say the same.
CREATE OR REPLACE VIEW lineage_of_episode AS
SELECT touched.policy AS policy, touched.version AS version, touched.how AS how, touched.draws AS draws,
    versions.published_at AS published_at
FROM
(
    SELECT policy, version, 'trained' AS how, toNullable(sum(of_revision)) AS draws
    FROM
    (
        SELECT policy, version, revision, max(lineage.draws) AS of_revision
        FROM raw_training_lineage AS lineage
        WHERE episode_id = {episode_id:UUID} AND (policy, version, reported_at) IN
        (
            SELECT policy, version, reported_at FROM raw_training_reports FINAL
        )
        GROUP BY policy, version, revision
    )
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
