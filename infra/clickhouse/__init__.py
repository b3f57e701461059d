"""ClickHouse: the client that every process uses, and the migrations that lay its tables out."""
