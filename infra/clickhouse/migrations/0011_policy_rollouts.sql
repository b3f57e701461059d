-- The topic keeps the newest state of each line only; here is the history, with who changed what and why.

CREATE TABLE IF NOT EXISTS raw_policy_rollouts
(
    policy LowCardinality(String),
    generation Int64,
    mode LowCardinality(String),
    current Nullable(Int64),
    previous Nullable(Int64),
    canary Nullable(Int64),
    canary_fraction Nullable(Float64),
    canary_robots Array(String),
    queued Array(Int64),
    pins Array(Tuple(robot_id String, version Int64)),
    restored Nullable(Int64),
    author String,
    reason String,
    written_at DateTime64(6, 'UTC'),
    key_id Nullable(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (policy, generation);

CREATE OR REPLACE VIEW policy_rollouts
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    generation Int64 COMMENT 'Number of the state; robots follow the highest that they saw.',
    mode LowCardinality(String) COMMENT 'FOLLOW_LATEST or HOLD.',
    current Nullable(Int64) COMMENT 'Version that robots run which nothing else is said of; NULL for the newest.',
    previous Nullable(Int64) COMMENT 'Version that was current before it.',
    canary Nullable(Int64) COMMENT 'Version that a part of the fleet tries.',
    canary_fraction Nullable(Float64) COMMENT 'Share of the fleet that tries it; NULL if robots are named.',
    canary_robots Array(String) COMMENT 'Robots that try it, by name.',
    queued Array(Int64) COMMENT 'Versions that wait to be tried.',
    pins Array(Tuple(robot_id String, version Int64)) COMMENT 'Robots that stay at a version, whatever else is said.',
    restored Nullable(Int64) COMMENT 'Version from which the learner goes on after a rollback.',
    author String COMMENT 'Who wrote the state.',
    reason String COMMENT 'Why.',
    written_at DateTime64(6, 'UTC') COMMENT 'When.',
    key_id Nullable(String) COMMENT 'Key that it names as the signer''s. The signature itself is checked by robots, not here.'
)
AS
SELECT
    policy, generation, mode, current, previous, canary, canary_fraction, canary_robots, queued, pins, restored,
    author, reason, written_at, key_id
FROM raw_policy_rollouts FINAL
COMMENT 'Who rolled which version out to whom, when and why: one row for each state of a line.';
