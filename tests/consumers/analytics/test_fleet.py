"""`sop fleet` on heartbeats in the engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from consumers.analytics.fleet import Fleet, ago
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.local.stack import Stack
from infra.settings import load_settings
from schemas.events import Heartbeat
from sop import app
from tests.infra.clickhouse import world


def beat(robot_id: str, seconds_ago: float, epoch: int = 5, **changes: Any) -> Heartbeat:
    """As if it had been sent so long before now; made when it is inserted, and not much earlier."""
    fields = {
        "spool_depth": 0,
        "spool_age_seconds": 0.0,
        "policy": "default",
        "policy_version": 4,
        "episodes_ended": 1,
        "policy_wanted": 4,
    }
    reported_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return Heartbeat(**fields | changes, robot_id=robot_id, boot_epoch=epoch, reported_at=reported_at)


def beats() -> list[Heartbeat]:
    return [
        beat("calm", 9.0, spool_depth=3),
        beat("calm", 1.0),
        beat("old-version", 1.0, policy_version=3, frames_dropped=7),
        beat("ill", 1.0, errors=("the schema registry: away",), spool_depth=900, spool_age_seconds=75.0),
        beat("gone", 7_200.0),
        beat("long-gone", 10 * 86_400.0),
        beat("fast-clock", -3_600.0, clock_offset_seconds=-3_601.0),
        beat("in-1970", 1.7e9, clock_offset_seconds=1.7e9 - 1),
        beat("new", 1.0, policy="", policy_version=0, policy_wanted=None),
        beat("restarted", 60.0, epoch=5),
        beat("restarted", 30.0, epoch=6),
        beat("restarted", 1.0, epoch=6, policy_version=4),
        beat("cloned", 60.0, epoch=5),
        beat("cloned", 50.0, epoch=6),
        beat("cloned", 2.0, epoch=5),
        beat("cloned", 1.0, epoch=6),
    ]


@pytest.fixture(scope="module", autouse=True)
def _servers(stack: Stack) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**stack.environment(), "SOP_CLICKHOUSE__DATABASE": "tests_fleet"}.items():
            patch.setenv(name, value)
        settings = load_settings()
        migrate(settings.clickhouse)
        client = connect(settings.clickhouse)
        world.insert(client, beats())
        client.close()
        yield


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fleet", *arguments], env={"COLUMNS": "200"})


def test_each_robot_is_as_its_newest_boot_said_last() -> None:
    found = {row["robot"]: row for row in json.loads(run("--format", "json").output)}
    assert set(found) == {beat.robot_id for beat in beats()} - {"long-gone"}
    assert {name: row["activation"] for name, row in found.items()} == {
        "calm": "active",
        "old-version": "waits for v4",
        "ill": "active",
        "gone": "active",
        "fast-clock": "active",
        "in-1970": "active",
        "new": "none",
        "restarted": "active",
        "cloned": "active",
    }
    assert found["calm"]["spool_depth"] == 0
    assert found["old-version"]["frames_dropped"] == 7
    assert found["gone"]["seen_seconds_ago"] > 7_199
    for robot in ("fast-clock", "in-1970"):
        assert found[robot]["seen_seconds_ago"] < 3_000, "by the broker's clock, not by its own"


def test_two_clients_of_one_robot_that_run_at_once_are_named_and_a_restart_is_not() -> None:
    found = {row["robot"]: row["errors"] for row in json.loads(run("--format", "json").output)}
    assert found["cloned"] == ["two clients with this robot_id run at once"]
    assert found["restarted"] == []
    assert found["ill"] == ["the schema registry: away"]


def test_the_table_has_trouble_first_and_counts_the_fleet() -> None:
    result = run("--once")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "9 robots, " in lines[0]
    assert "2 with errors; 900 events in their spools; newest heartbeat " in lines[0]
    order = [name for line in lines for name in ("cloned", "ill", "gone", "calm") if f" {name} " in line]
    assert order == ["cloned", "ill", "gone", "calm"]
    assert "1 of 9 shown" in run("--once", "--limit", "1").output
    assert "long-gone" in run("--once", "--since", "2000000").output


def told(*robots: tuple[float, int, list[str]]) -> str:
    rows = [{"seen_seconds_ago": age, "spool_depth": depth, "errors": errors} for age, depth, errors in robots]
    return Fleet(rows).summary()


def test_a_fleet_that_fell_silent_is_not_called_well() -> None:
    assert told((1.0, 0, []), (14.0, 5, ["ill"]), (7_200.0, 0, [])) == (
        "3 robots, 2 reporting, 1 silent, 1 with errors; 5 events in their spools; newest heartbeat 1 s ago"
    )
    assert told((40.0, 3, []), (240.0, 0, ["ill"])) == (
        "2 robots, all silent: the newest heartbeat is 40 s old. Are Kafka, `sop index` and the robots' network "
        "up? What they said then: 1 with errors; 3 events in their spools"
    )
    assert told() == "no robot was heard of"


def test_spans_of_time_are_read_at_a_glance() -> None:
    spans = (3.2, 99.9, 100, 6_000, 172_800)
    assert [ago(span) for span in spans] == ["3 s", "100 s", "1 min", "1 h", "2 d"]
