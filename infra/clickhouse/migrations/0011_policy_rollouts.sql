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

CREATE OR REPLACE VIEW policy_rollouts AS
SELECT * FROM raw_policy_rollouts FINAL
COMMENT 'One row for each state of a rollout. Signatures were not checked: robots do that.';
