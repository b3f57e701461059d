"""Fills the tables from `generate.sql`, inside the engine: nothing travels but SQL.

Every hundredth row is inserted twice, and every two-hundredth episode has a second revision, as late events and
restarts of the index leave them.
"""

from __future__ import annotations

import time
from pathlib import Path

from infra.clickhouse.client import Client
from infra.clickhouse.migrate import Migration
from infra.clickhouse.summing import sum_days

CHUNK = 250_000


def fill(client: Client, rows: int) -> float:
    """Generate `rows` episodes and what belongs to them; seconds that it took."""
    begun = time.perf_counter()
    episodes, *others = Migration(0, "generate", Path(__file__).with_name("generate.sql").read_text()).statements
    for every, revision in ((1, 1), (100, 1), (200, 2)):
        for first in range(0, rows, CHUNK):
            bound = {"first": first, "count": min(CHUNK, rows - first), "total": rows}
            client.command(episodes, parameters=bound | {"every": every, "revision": revision})
    for sql in others:
        client.command(sql, parameters={"total": rows} if "{total:" in sql else None)
    return time.perf_counter() - begun


def settle(client: Client) -> None:
    """Merge the months that are over and sum the days, as quiet minutes would; the last month keeps its parts."""
    sql = (
        "SELECT DISTINCT table, partition FROM system.parts WHERE active AND database = currentDatabase() "
        "AND table IN ('raw_episodes', 'raw_episode_latency', 'raw_interventions') "
        "AND partition < (SELECT max(partition) FROM system.parts WHERE active AND table = 'raw_episodes')"
    )
    for table, partition in client.query(sql).result_rows:
        client.command(f"OPTIMIZE TABLE {table} PARTITION {partition} FINAL")
    while sum_days(client, quiet=0.0):
        pass
