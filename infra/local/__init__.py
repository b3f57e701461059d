"""Real servers on one machine, without containers: set-up, broker, object store, ClickHouse, registry."""
