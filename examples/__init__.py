"""Complete programs built from the robot client, the learner and the servers; nothing imports them."""
