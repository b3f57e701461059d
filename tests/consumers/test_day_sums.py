"""`sop index` keeps the sums of quiet days at hand, and is none the worse where it cannot."""

from __future__ import annotations

import socket

import pytest

from consumers.index import SUMS_SECONDS, DaySums
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.clock import ManualClock
from infra.local.stack import Stack
from infra.settings import Settings
from tests.infra.clickhouse import world

SUMMED = "SELECT countIf(summed), count() FROM outcome_days"


@pytest.fixture
def settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {**stack.environment(), "SOP_CLICKHOUSE__DATABASE": "consumers_day_sums"}.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_days_are_summed_when_it_is_time_and_they_have_been_quiet(settings: Settings) -> None:
    migrate(settings.clickhouse)
    client = connect(settings.clickhouse)
    world.insert(client, [world.episode(8)])
    clock = ManualClock(world.at(0))
    sums = DaySums(settings, clock)
    clock.advance(SUMS_SECONDS + 1)
    sums.turn()
    assert client.query(SUMMED).result_rows == [(0, 1)], "it changed a moment ago"
    client.command("CREATE TABLE was ENGINE = Memory AS SELECT * FROM raw_outcome_days")
    client.command("TRUNCATE TABLE raw_outcome_days")
    client.command("INSERT INTO raw_outcome_days SELECT day, changed_at - INTERVAL 1 HOUR, summed_at FROM was")
    sums.turn()
    assert client.query(SUMMED).result_rows == [(0, 1)], "it is not time yet"
    clock.advance(SUMS_SECONDS + 1)
    sums.turn()
    assert client.query(SUMMED).result_rows == [(1, 1)]
    client.close()


def test_a_clickhouse_that_is_away_or_not_deployed_ends_nothing(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    away = settings.model_copy(update={"clickhouse": settings.clickhouse.model_copy(update={"port": port})})
    bare = settings.clickhouse.model_copy(update={"database": "default"})
    for wrong in (away, settings.model_copy(update={"clickhouse": bare})):
        clock = ManualClock(world.at(0))
        sums = DaySums(wrong, clock)
        clock.advance(SUMS_SECONDS + 1)
        sums.turn()
