"""The learner, without and with the real servers."""
