-- A year of a fleet's history: twenty tasks, 64 robots, 2,000 policy versions, the success rate rising from 60 to 90 %.
-- The first statement makes every `every`-th of `count` episodes from number `first` on, of `total`; the others make
-- what belongs to them.

INSERT INTO raw_episodes (episode_id, revision, robot_id, boot_epoch, task, instruction, embodiment, source, policy,
    fps, end, success, closed_by, payload_uri, payload_sha256, payload_bytes, step_count, human_step_count,
    reward_sum, missing_count, rejected_count, policy_versions, human_ranges, intervention_count, source_offsets,
    started_at, ended_at, appended_at, materialized_at, simulated_ended_at, stream_partition, stream_offset)
SELECT
    toUUID(concat(substring(h, 1, 8), '-', substring(h, 9, 4), '-7', substring(r, 1, 3), '-8',
        substring(r, 4, 3), '-', substring(r, 7, 12))) AS episode_id,
    {revision:UInt32}, concat('robot-', toString(intHash32(n) % 64)), 1735689600000,
    concat('task-', toString(intHash32(n + 7) % 20)) AS task, concat('Do ', task, '.'), 'arm',
    multiIf(intHash32(n + 1) % 50 = 0, 'DEMONSTRATION', intHash32(n + 1) % 50 = 1, 'EVALUATION', 'ONLINE') AS kind,
    'default', 30,
    multiIf(intHash32(n + 2) % 100 < 96, 'TERMINATED', intHash32(n + 2) % 100 < 99, 'TRUNCATED', 'ABORTED') AS end,
    if(end = 'TERMINATED', intHash32(n + 3) % 1000 < 600 + 300 * n / {total:UInt64}, NULL), 'COMPLETE',
    concat('s3://sop/episodes/', toString(episode_id), '/1-', sha, '.parquet'),
    lower(hex(SHA256(toString(n)))) AS sha, 40000 + intHash32(n + 4) % 100000,
    100 + intHash32(n + 5) % 400 AS steps, if(intHash32(n + 6) % 10 < 3, 1 + intHash32(n + 8) % 60, 0) AS human,
    intHash32(n + 9) % 1000 / 10, 0, 0,
    if(kind = 'DEMONSTRATION', [], [toInt64(1 + intDiv(n * 1999, {total:UInt64}))]),
    if(human > 0, [(10, 9 + human)], []), toUInt32(human > 0),
    [('robot-steps', toInt32(n % 4), n * 300, n * 300 + 300), ('robot-episodes', toInt32(n % 4), n * 2, n * 2 + 1)],
    fromUnixTimestamp64Micro(toInt64(ms * 1000)) AS began, began + toIntervalMillisecond(steps * 33) AS done,
    done + toIntervalMillisecond(20 + intHash32(n + 11) % 200) AS stored,
    stored + toIntervalMillisecond(50 + intHash32(n + 12) % 400), NULL, n % 4, n
FROM
(
    -- From 2025-01-01 on, in milliseconds.
    SELECT number AS n, 1735689600000 + intDiv(number * 31536000000, {total:UInt64}) AS ms,
        lower(leftPad(hex(toUInt64(ms)), 12, '0')) AS h, lower(hex(sipHash128(number))) AS r
    FROM numbers({first:UInt64}, {count:UInt64})
    WHERE number % {every:UInt64} = 0
);

INSERT INTO raw_policy_versions (policy, version, published_at)
SELECT 'default', number + 1,
    fromUnixTimestamp64Micro(toInt64((1735689600000 + intDiv(number * 31536000000, 2000)) * 1000))
FROM numbers(2000);

INSERT INTO raw_policy_activations (robot_id, policy, version, activated_at)
SELECT concat('robot-', toString(robot)), policy, version, published_at + toIntervalSecond(20 + robot)
FROM raw_policy_versions ARRAY JOIN range(64) AS robot;

INSERT INTO raw_training_admissions (policy, episode_id, revision, seen_at)
SELECT policy, episode_id, revision, materialized_at + toIntervalMillisecond(500)
FROM raw_episodes WHERE source != 'EVALUATION';

INSERT INTO raw_training_lineage (policy, version, episode_id, revision, draws, reported_at)
SELECT policy, policy_version + 1, episode_id, revision, 1 + cityHash64(episode_id) % 50,
    toDateTime64('2026-01-01 00:00:00', 6, 'UTC')
FROM raw_episodes WHERE source = 'ONLINE' AND policy_version > 0;

INSERT INTO raw_interventions (episode_id, intervention_id, revision, robot_id, task, source, operator, reason,
    first_step, last_step, began_at, ended_at)
SELECT episode_id, episode_id, revision, robot_id, task, source, 'ada', 'slips', 10, 9 + human_step_count, started_at,
    ended_at
FROM raw_episodes WHERE intervention_count > 0;

-- What expires ends now: a heartbeat a second of each robot, two for each episode in all.
INSERT INTO raw_robot_status (robot_id, boot_epoch, reported_at, received_at, spool_depth, spool_age_seconds, policy,
    policy_version, episodes_ended, errors, waiting, clock_offset_seconds, frames_dropped)
SELECT concat('robot-', toString(number % 64)), 1735689600000,
    now64(6, 'UTC') - toIntervalSecond(intDiv(number, 64)), now64(3, 'UTC') - toIntervalSecond(intDiv(number, 64)),
    number % 50, 0.1, 'default', 2000, 7, if(number % 5000 = 0, ['slow'], []), false, 0.01,
    intDiv(2 * {total:UInt64} - number, 1000)
FROM numbers(2 * {total:UInt64});

INSERT INTO raw_dead_letters (topic, partition, offset, robot_id, reason, error, value, appended_at)
SELECT 'robot-steps', number % 4, number, concat('robot-', toString(number % 64)),
    if(number % 3 = 0, 'conflict', 'undecodable'), 'not a step', 'x', now64(3, 'UTC') - toIntervalMinute(number % 10000)
FROM numbers(intDiv({total:UInt64}, 1000) + 10);

INSERT INTO raw_training_progress (policy, learner_step, reported_at, loss, online_share, episodes_admitted)
SELECT 'default', 20000 - number, now64(6, 'UTC') - toIntervalSecond(30 * number), 0.1, 0.5, 1000
FROM numbers(20000);

INSERT INTO raw_policy_rollouts (policy, generation, mode, author, reason, written_at)
SELECT 'default', number + 1, 'FOLLOW_LATEST', 'ada', 'as before', now64(6, 'UTC') - toIntervalHour(20 - number)
FROM numbers(20);
