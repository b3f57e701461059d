"""The learner as a process of its own, against the real broker, object store and registry."""
