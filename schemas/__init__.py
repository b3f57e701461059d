"""What travels between the processes: events, their Avro schemas, and the topics that carry them."""
