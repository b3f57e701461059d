"""The benchmark compares like with like: views and plain queries agree, duplicates, revisions and all."""

from __future__ import annotations

from pathlib import Path

from benchmarks.analytics.__main__ import gateway, measure, sizes
from benchmarks.analytics.generate import fill, settle
from benchmarks.analytics.queries import QUESTIONS
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate

ROWS = 20_000


def test_views_and_plain_queries_give_the_same_rows_of_generated_episodes(tmp_path: Path) -> None:
    with gateway(tmp_path) as site:
        migrate(site)
        client = connect(site)
        fill(client, ROWS)
        settle(client)
        ((episodes, revised),) = client.query("SELECT count(), countIf(revision = 2) FROM episodes").result_rows
        assert (episodes, revised) == (ROWS, ROWS // 200)
        table, differ = measure(connect(site, analyst=True))
        assert differ == []
        assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == [
            question.name for question in QUESTIONS
        ]
        assert all(line.split(" | ")[1] != "0" for line in table.splitlines()[2:]), "each has an answer"
        assert "| raw_episodes |" in sizes(client, ROWS)
        client.close()
