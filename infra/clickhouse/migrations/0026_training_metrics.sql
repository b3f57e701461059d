ALTER TABLE raw_training_progress
    ADD COLUMN IF NOT EXISTS metrics Map(LowCardinality(String), Float64);

CREATE OR REPLACE VIEW training_progress
(
    policy LowCardinality(String) COMMENT 'Policy line.',
    learner_step Int64 COMMENT 'Gradient steps taken on the line so far.',
    reported_at DateTime64(6, 'UTC') COMMENT 'When the learner said so, by its clock.',
    loss Float64 COMMENT 'Mean loss since the report before; 0 when nothing was drawn.',
    online_share Float64 COMMENT 'Share of online samples since the report before.',
    groups Array(Tuple(task LowCardinality(String), online Bool, draws Int64, loss Float64)) COMMENT 'Draws and mean losses since the report before, by task and source.',
    episodes_admitted Int64 COMMENT 'Episodes that training can draw from.',
    steps_admitted Int64 COMMENT 'Steps that training can draw from.',
    simulated_seconds Nullable(Float64) COMMENT 'Simulated time, where time is simulated.',
    mixing Array(Tuple(task LowCardinality(String), first_step Int64, online_shares Array(Float64))) COMMENT 'Online share of every draw by task: online_shares[n] is that of learner step first_step + n - 1.',
    updates_skipped Int64 COMMENT 'Updates since the report before whose gradient was absurd: nothing was learned from them.',
    metrics Map(LowCardinality(String), Float64) COMMENT 'What the algorithm tells besides its losses, such as learning_rate: means over the updates since the report before.'
) AS
SELECT * FROM raw_training_progress FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What the learner reported, losses being means since the report before.';
