-- What two times do not say: a label makes a new revision, and demonstrations are of no policy line.
ALTER TABLE episodes COMMENT COLUMN materialized_at 'When the payload of this revision was stored and it was announced; a label makes a new one, and episode_latency keeps the time of the recording.';
ALTER TABLE episode_latency COMMENT COLUMN seen_at 'When the learner of its policy line first read the announcement; NULL before that, and where the robot followed no line, as in demonstrations: training_admissions has those.';
