"""The robot's disk spool: events go in at once, survive the process, and leave for Kafka in the background."""
