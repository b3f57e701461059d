"""`make bench-console`: the console's pages, and the parts that they load, over generated episodes.

    python -m benchmarks.console --rows 1000000

Each address is asked three times, its answers forgotten in between; the median counts. The clock stands at the end
of what was generated. A page's first view needs the page alone; its parts come one by one, and at the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from starlette.testclient import TestClient

from benchmarks.analytics.__main__ import gateway
from benchmarks.analytics.generate import fill, settle
from consumers.console.app import application, build
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.clock import ManualClock
from infra.settings import Settings

_RUNS = 3
_END = datetime(2025, 12, 31, 23, 30, tzinfo=UTC)
_ADDRESSES = (
    *("/", "/episodes", "/success", "/interventions", "/latency", "/policies", "/policies/default/1500"),
    *("/dead-letters", "/panels/robots", "/panels/totals", "/panels/latest"),
    *("/panels/episodes", "/panels/episodes?task=task-3&outcome=failure", "/panels/names/tasks"),
    *("/panels/success/versions", "/panels/success/versions?task=task-3"),
    *("/panels/success/time", "/panels/success/time?window=7d", "/panels/success/tasks"),
    *("/panels/interventions/time", "/panels/interventions/reasons", "/panels/interventions/latest"),
    *("/panels/interventions/versions", "/panels/interventions/versions?task=task-3"),
    *("/panels/interventions/return", "/panels/interventions/return?task=task-3", "/panels/names/robots"),
    *("/panels/dead-letters/reasons", "/panels/dead-letters/list"),
    *("/panels/latency/stages", "/panels/latency/staleness", "/panels/policies/versions?policy=default"),
    *("/panels/policies/default/1500/lineage", "/panels/policies/default/1500/did"),
)


def main() -> int:
    """Generate, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console")
    parser.add_argument("--rows", type=int, default=10_000_000, help="episodes to generate")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sop-console-", dir="/var/tmp") as folder,
        gateway(Path(folder)) as site,
    ):
        migrate(site)
        writer = connect(site)
        fill(writer, options.rows)
        settle(writer)
        console = build(Settings(clickhouse=site), ManualClock(_END))
        print(
            f"{options.rows:,} episodes; {os.cpu_count()} cores\n\n| address | answer | ms |\n| --- | --- | --- |"
        )
        with TestClient(application(console, ["testserver"])) as pages:
            for address in _ADDRESSES:
                times = []
                for _ in range(_RUNS):
                    console.warehouse.forget()
                    begun = time.perf_counter()
                    status = pages.get(address, headers={"X-Fragment": "1"}).status_code
                    times.append((time.perf_counter() - begun) * 1000)
                print(f"| `{address}` | {status} | {statistics.median(times):.0f} |", flush=True)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
