"""Deployments that begin at once go one after the other, and one that was killed holds nobody up for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.clickhouse.client import connect
from infra.clickhouse.lease import deployment_lease
from infra.clickhouse.migrate import Migration, load_migrations, migrate
from infra.errors import DeploymentConflict
from infra.local.stack import Stack
from infra.settings import ClickHouseSettings, Settings

ROOT = Path(__file__).resolve().parents[3]
COUNTED = Migration(
    1,
    "0001_counted",
    "CREATE TABLE IF NOT EXISTS runs (n UInt8) ENGINE = MergeTree ORDER BY n;\n"
    "INSERT INTO runs SELECT 1 FROM numbers(1) WHERE sleep(1) = 0;\n",
)
KILLED = """
import sys
from pathlib import Path
from infra.clickhouse.migrate import Migration, migrate
from infra.settings import load_settings

text = "CREATE TABLE IF NOT EXISTS first (n UInt8) ENGINE = Memory;\\n" \
    "SELECT sleepEachRow(1) FROM numbers(600) SETTINGS max_block_size = 1, " \
    "function_sleep_max_microseconds_per_block = 0;\\n"
settings = load_settings().clickhouse.model_copy(update={"database": sys.argv[1]})
migrate(settings, [Migration(1, "0001_killed", text)], term=6.0)
"""


@pytest.fixture
def empty(settings: Settings, name: str) -> ClickHouseSettings:
    """A database that exists and is empty."""
    made = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    client = connect(made, database="default")
    client.command(f"CREATE DATABASE {made.database}")
    client.close()
    return made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within three minutes"
        time.sleep(0.05)


def tables(settings: ClickHouseSettings) -> set[str]:
    client = connect(settings)
    found = {str(row[0]) for row in client.query("SHOW TABLES").result_rows}
    client.close()
    return found


def test_of_deployments_that_begin_at_once_one_applies_each_migration(empty: ClickHouseSettings) -> None:
    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(migrate, empty, [COUNTED]) for _ in range(4)]
        assert sorted(len(one.result(120)) for one in done) == [0, 0, 0, 1]
    client = connect(empty)
    assert client.query("SELECT count() FROM runs").result_rows == [(1,)]
    client.close()


def test_all_of_ours_are_applied_by_two_deployments_of_a_new_database(settings: Settings, name: str) -> None:
    new = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(migrate, new) for _ in range(2)]
        assert sorted(len(one.result(300)) for one in done) == [0, len(load_migrations())]


def test_the_lease_is_held_by_one_at_a_time(empty: ClickHouseSettings) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def hold() -> None:
        nonlocal inside, most
        with deployment_lease(empty, wait=120) as still_ours:
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            still_ours()
            with guard:
                inside -= 1

    with ThreadPoolExecutor(8) as threads:
        for one in [threads.submit(hold) for _ in range(16)]:
            one.result(120)
    assert most == 1
    assert len([table for table in tables(empty) if table.startswith("schema_lease_")]) == 1


def test_a_lease_is_kept_for_longer_than_its_term(empty: ClickHouseSettings) -> None:
    term = 8.0
    with deployment_lease(empty, term=term) as still_ours:
        until = time.monotonic() + 1.2 * term
        while time.monotonic() < until:
            time.sleep(0.5)
            still_ours()
        with pytest.raises(DeploymentConflict, match="another deployment"), deployment_lease(empty, wait=0.5):
            pass


def test_who_lost_the_lease_is_told_before_the_next_step(empty: ClickHouseSettings) -> None:
    with deployment_lease(empty, term=1.0) as still_ours:
        client = connect(empty)
        # Another one took over, as it does from a process that stood still for longer than the term.
        client.command("CREATE TABLE schema_lease_2 (n UInt8) ENGINE = MergeTree ORDER BY n COMMENT 'other 0'")

        def is_lost() -> bool:
            try:
                still_ours()
            except DeploymentConflict:
                return True
            return False

        wait_until(is_lost)
        client.close()


def test_a_deployment_that_is_killed_between_two_steps_is_followed_by_the_next(
    stack: Stack, empty: ClickHouseSettings
) -> None:
    environment = {**os.environ, **stack.environment(), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, empty.database], cwd=ROOT, env=environment)
    try:
        wait_until(lambda: process.poll() is None and "first" in tables(empty))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    mended = Migration(1, "0001_killed", "CREATE TABLE IF NOT EXISTS first (n UInt8) ENGINE = Memory;\n")
    assert migrate(empty, [mended]) == ["0001_killed"]
    assert "first" in tables(empty)
