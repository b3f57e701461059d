"""`make bench-analytics`: dashboard queries over generated episodes, beside the best plain query.

    python -m benchmarks.analytics --rows 1000000 --report FILE

Each query runs once to warm up and then five times; the median counts, over HTTP and as the analyst. Both ways
must give the same rows. Sizes on disk are of the active parts.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.analytics.generate import fill, settle
from benchmarks.analytics.queries import QUESTIONS
from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.errors import ClickHouseUnavailable
from infra.settings import ClickHouseSettings

_RUNS = 5
_START_SECONDS = 60.0


def main() -> int:
    """Generate, measure, print; 1 if the answers of any two ways differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics")
    parser.add_argument("--rows", type=int, default=10_000_000, help="episodes to generate")
    parser.add_argument("--report", type=Path, help="write what was found to this file, as Markdown")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sop-analytics-", dir="/var/tmp") as folder,
        gateway(Path(folder)) as site,
    ):
        migrate(site)
        writer, reader = connect(site), connect(site, analyst=True)
        seconds = fill(writer, options.rows)
        settle(writer)
        print(f"{options.rows} episodes generated in {seconds:.0f} s", file=sys.stderr)
        table, differ = measure(reader)
        text = f"{heading(reader, options.rows)}\n{table}\n{sizes(reader, options.rows)}"
    print(text)
    if options.report:
        options.report.write_text(text)
    return 1 if differ else 0


def measure(client: Client) -> tuple[str, list[str]]:
    """A Markdown table of all questions, and the names of those with two answers."""
    lines = ["| query | rows | ms | target | plain ms | plain / ms |", "| --- | --- | --- | --- | --- | --- |"]
    differ = []
    for question in QUESTIONS:
        rows, ms = timed(client, question.view)
        plain, times = "", ""
        if question.plain is not None:
            plain_rows, plain_ms = timed(client, question.plain)
            plain, times = f"{plain_ms:.0f}", f"{plain_ms / ms:.1f}"
            if rows != plain_rows:
                differ.append(question.name)
                print(f"{question.name}: views and plain query differ", file=sys.stderr)
        within = f"{question.target_ms}{'' if ms <= question.target_ms else ' (missed)'}"
        count = len(rows)
        lines.append(f"| {question.name} | {count} | {ms:.0f} | {within} | {plain} | {times} |")
    return "\n".join(lines) + "\n", differ


def timed(client: Client, sql: str) -> tuple[list[str], float]:
    """The answer, in an order of its own, and the median of its times in milliseconds."""
    times = []
    for _ in range(_RUNS + 1):
        begun = time.perf_counter()
        rows: Sequence[Sequence[object]] = client.query(sql).result_rows
        times.append((time.perf_counter() - begun) * 1000)
    return sorted(repr([_plain(value) for value in row]) for row in rows), statistics.median(times[1:])


def heading(client: Client, rows: int) -> str:
    """What was measured, and on what."""
    stored, parts = client.query(
        "SELECT sum(rows), count() FROM system.parts WHERE active AND table = 'raw_episodes'"
    ).result_rows[0]
    return (
        f"{rows:,} episodes ({stored:,} stored rows in {parts} parts); {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end; ClickHouse {client.server_version}, over HTTP.\n"
    )


def sizes(client: Client, rows: int) -> str:
    """Bytes on disk for each million episodes, by table."""
    found = client.query(
        "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active "
        "AND database = currentDatabase() AND NOT startsWith(table, 'schema_') GROUP BY table ORDER BY table"
    ).result_rows
    lines = ["| table | rows | MB for each million episodes |", "| --- | --- | --- |"]
    lines += [f"| {table} | {count:,} | {size / rows:.1f} |" for table, count, size in found]
    return "\n".join(lines) + "\n"


@contextmanager
def gateway(folder: Path) -> Iterator[ClickHouseSettings]:
    """ClickHouse alone, on a port of its own; gone at the end."""
    for name in ("sop", "analyst"):
        (folder / name).write_text(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "infra.local.clickhouse", "--path", str(folder / "data"), "--port", str(port)]
    passwords = ["--sop-password", str(folder / "sop"), "--analyst-password", str(folder / "analyst")]
    site = ClickHouseSettings.model_validate(
        {
            "port": port,
            "username": "sop",
            "password": "sop",
            "analyst_username": "analyst",
            "analyst_password": "analyst",
            "timeout": 1800.0,
        }
    )
    process = subprocess.Popen([*command, *passwords])
    try:
        _wait(site)
        yield site
    finally:
        process.kill()
        process.wait()


def _wait(site: ClickHouseSettings) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            connect(site, database="default").close()
            return
        except ClickHouseUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _plain(value: object) -> object:
    """Alike for the two ways: enum or text, float or integer."""
    if isinstance(value, (int, float)):
        return round(float(value), 6)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
