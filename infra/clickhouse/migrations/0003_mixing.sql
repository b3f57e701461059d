-- The online share of every draw, by task: online_shares[n] is that of learner step first_step + n - 1.

ALTER TABLE raw_training_progress
    ADD COLUMN IF NOT EXISTS mixing Array(Tuple(task LowCardinality(String), first_step Int64, online_shares Array(Float64)));

CREATE OR REPLACE VIEW training_progress AS
SELECT * FROM raw_training_progress FINAL
COMMENT 'What the learner reported, losses being means since the report before.';
