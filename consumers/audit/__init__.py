"""Looking after what was stored: `sop reconcile` audits, `sop reindex` rebuilds ClickHouse, `sop gc` collects."""
