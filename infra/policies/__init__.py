"""What robots, learner, guard and operators share about policies: keys, rollouts, and where they are written."""
