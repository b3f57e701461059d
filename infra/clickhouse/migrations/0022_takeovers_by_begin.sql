-- When a takeover began is the same in all revisions of its row, so that an index of it leaves out all of them or none.
-- ClickHouse cannot know that, and reads again whatever might hide another revision of a row: in a table ordered by ids
-- that is everything, and a look at one day read the year.
CREATE OR REPLACE VIEW interventions
(
    episode_id UUID COMMENT 'Episode that it happened in.',
    intervention_id UUID COMMENT 'UUIDv7 of the takeover.',
    revision UInt32 COMMENT 'Revision of the episode that says so.',
    robot_id LowCardinality(String) COMMENT 'Robot.',
    task LowCardinality(String) COMMENT 'Task of the episode.',
    source Enum8('ONLINE' = 1, 'DEMONSTRATION' = 2, 'EVALUATION' = 3) COMMENT 'Why the episode was recorded.',
    excluded Bool COMMENT 'Whether a label leaves the episode out; what is counted is counted WHERE NOT excluded.',
    operator LowCardinality(String) COMMENT 'Who took over.',
    reason LowCardinality(String) COMMENT 'Why, in the operator''s words.',
    first_step Int32 COMMENT 'First step index under human control.',
    last_step Nullable(Int32) COMMENT 'Last step index under human control; NULL when its end is unknown.',
    began_at DateTime64(6, 'UTC') COMMENT 'Begin, by the robot''s clock.',
    ended_at Nullable(DateTime64(6, 'UTC')) COMMENT 'End, by the robot''s clock; NULL when unknown.'
) AS
SELECT episode_id, intervention_id, revision, robot_id, task, source, excluded, operator, reason, first_step, last_step,
    began_at, ended_at
FROM raw_interventions FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0
COMMENT 'One row for each time that a human took over.';
