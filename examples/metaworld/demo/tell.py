"""What the demo says at its end: tables from ClickHouse, the picture, and where to look further."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.metaworld.demo import plot, queries
from examples.metaworld.demo.report import Report
from examples.metaworld.settings import FleetSettings
from infra.clickhouse.client import Client
from infra.settings import Settings
from infra.terminal import program


def outcome(console: Console, clickhouse: Client, fleet: FleetSettings, report: Report, picture: Path) -> None:
    """Print the tables, and draw success over simulated time."""
    for title, result in (
        ("Alone on the fixed evaluation set", queries.evaluation_by_task(clickhouse)),
        ("The fleet while it ran, by policy version", queries.online_by_version(clickhouse)),
        ("Why the expert took over", queries.interventions_by_reason(clickhouse)),
    ):
        console.print(_table(f"{title} (ClickHouse)", result.columns, result.rows))
    console.print(_accounts(report))
    base, final = report.success.base, report.success.final
    plot.draw(
        picture,
        queries.success_over_time(clickhouse, fleet.interval_seconds, fleet.intervals),
        (base, final),
        fleet.minutes,
        f"{report.success.evaluation_episodes} evaluation episodes: {base:.0%} → {final:.0%}",
    )
    console.print(
        f"success on the fixed set of {report.success.evaluation_episodes} episodes: {base:.1%} → {final:.1%}; "
        f"picture: {picture}",
        highlight=False,
        soft_wrap=True,
    )


def verdict(console: Console, problems: Sequence[str]) -> None:
    """Say whether everything adds up."""
    if not problems:
        console.print("everything that was sent arrived, once, in every place", style="green")
    for problem in problems:
        console.print(f"does not add up: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)


def addresses(console: Console, settings: Settings, data_dir: Path) -> None:
    """Where a kept stack can be looked at, and how it is stopped."""
    clickhouse, sop, where = settings.clickhouse, program(), shlex.quote(str(data_dir))
    query = "SELECT task, policy_version, count(), avg(success) FROM episode_outcomes GROUP BY ALL"
    lines = (
        "",
        "The servers are still running.",
        f"  Kafka            {settings.kafka.bootstrap_servers}",
        f"  object store     {settings.s3.endpoint_url} (bucket {settings.s3.bucket})",
        f"  schema registry  {settings.registry.url}",
        f"  ClickHouse       http://{clickhouse.host}:{clickhouse.port}, database {clickhouse.database}",
        f'settings and secrets:  eval "$({sop} stack env --data-dir {where})"',
        f"ask:   curl -sS --netrc-file {where}/clickhouse.netrc \\",
        f"         'http://{clickhouse.host}:{clickhouse.port}/?database={clickhouse.database}' \\",
        f"         --data '{query}'",
        f"a worker again:        SOP_DATA_DIR={where} {sop} materialize   (or index, or learn)",
        f"stop:                  {sop} stack down --data-dir {where}   (with --purge the data go as well)",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _accounts(report: Report) -> Table:
    episodes, steps, interventions = report.episodes, report.steps, report.interventions
    rows = [
        ("episodes", episodes.sent, episodes.materialized, episodes.in_training_stream, episodes.in_clickhouse),
        ("steps", steps.sent, steps.materialized, "", ""),
        ("interventions", interventions.sent, "", "", interventions.in_clickhouse),
    ]
    columns = ("", "sent (robots' ledgers)", "materialized (Parquet)", "training stream", "ClickHouse")
    return _table("What was sent, and what arrived", columns, rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column.replace("_", " "), justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row))
    return table
