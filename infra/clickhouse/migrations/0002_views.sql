-- What analysts read. FINAL lives here, so that nobody has to write it and no duplicate insert ever shows.

CREATE OR REPLACE VIEW episodes AS
SELECT *, arrayMax(arrayPushBack(policy_versions, 0)) AS policy_version
FROM raw_episodes FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each episode: its newest revision.';

CREATE OR REPLACE VIEW episode_outcomes AS
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
    started_at,
    ended_at,
    simulated_ended_at
FROM episodes
COMMENT 'How each episode went. success is 1, 0 or NULL (unknown); policy_version is the newest that was loaded in it, 0 for none.';

CREATE OR REPLACE VIEW interventions AS
SELECT * FROM raw_interventions FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row for each time that a human took over.';

CREATE OR REPLACE VIEW policy_versions AS
SELECT * FROM raw_policy_versions FINAL
COMMENT 'One row for each published policy version.';

CREATE OR REPLACE VIEW policy_activations AS
SELECT * FROM raw_policy_activations FINAL
COMMENT 'One row for each time that a robot swapped to a policy version.';

CREATE OR REPLACE VIEW training_progress AS
SELECT * FROM raw_training_progress FINAL
COMMENT 'What the learner reported, losses being means since the report before.';

CREATE OR REPLACE VIEW training_admissions AS
SELECT policy, episode_id, revision, min(raw.seen_at) AS seen_at
FROM raw_training_admissions AS raw
GROUP BY policy, episode_id, revision
COMMENT 'When the learner first read the announcement of each episode revision.';

CREATE OR REPLACE VIEW robot_status AS
SELECT * FROM raw_robot_status FINAL
ORDER BY robot_id, boot_epoch DESC, reported_at DESC
LIMIT 1 BY robot_id
COMMENT 'The newest heartbeat of each robot; the boot epoch counts before the clock, which may go back.';

CREATE OR REPLACE VIEW dead_letters AS
SELECT * FROM raw_dead_letters FINAL
COMMENT 'Records that could not be used, with the reason.';
