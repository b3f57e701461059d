"""The index when ClickHouse or Kafka does not take what it has: nothing is passed over or buried by mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, DataError

from consumers import index
from consumers.dead_letters import headers
from consumers.index import Indexer
from infra.kafka import Partition
from infra.kafka.positions import committed_offsets
from infra.settings import Settings
from schemas import codec
from schemas.events import Event, Heartbeat, PolicyActivated
from schemas.topics import DEAD_LETTERS, POLICY_ACTIVATIONS, ROBOT_STATUS
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.preloaded import run

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Driver:
    """In place of ClickHouse: keeps rows by table, and raises what a test wants instead."""

    def __init__(self) -> None:
        self.rows: dict[str, list[list[object]]] = {}
        self.raises: dict[str, Callable[[list[list[object]]], Exception | None]] = {}
        self.tries = 0

    def insert(self, table: str, rows: list[list[object]], column_names: list[str]) -> None:
        self.tries += 1
        assert all(len(row) == len(column_names) for row in rows)
        error = self.raises[table](rows) if table in self.raises else None
        if error is not None:
            raise error
        self.rows.setdefault(table, []).extend(rows)

    def close(self) -> None:
        pass


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(index, "connect", lambda _: made)
    return made


@pytest.fixture
def indexer(pipeline: Pipeline, driver: Driver) -> Iterator[Indexer]:
    """A member that has read everything there was, without a word to ClickHouse."""
    made = Indexer(pipeline.settings)
    yield made
    made.close()


def put(pipeline: Pipeline, topic: str, event: Event) -> None:
    schema_id = pipeline.registry.id_of(topic, codec.latest(event.record))
    pipeline.send_raw(topic, b"robot", codec.frame(schema_id, codec.encode(event)))
    pipeline.flush()


def heartbeat(depth: int) -> Heartbeat:
    return Heartbeat(
        robot_id="robot",
        boot_epoch=1,
        reported_at=NOW,
        spool_depth=depth,
        spool_age_seconds=0.0,
        policy="p",
        policy_version=1,
        episodes_ended=0,
    )


def activation() -> PolicyActivated:
    return PolicyActivated(
        robot_id="robot", boot_epoch=1, policy="p", version=1, sha256="0" * 64, activated_at=NOW
    )


def committed(settings: Settings, topic: str) -> int:
    places: list[Partition] = [(topic, number) for number in range(4)]
    return sum(committed_offsets(settings.kafka, settings.index.group, places).values())


def turns(indexer: Indexer, until: Callable[[], bool]) -> None:
    def turned() -> bool:
        indexer.turn()
        return until()

    wait_until(turned, "what the index should come to")


def busy(_: list[list[object]]) -> Exception:
    return DatabaseError("Code: 241. DB::Exception: Memory limit exceeded", code=241)


def too_deep(rows: list[list[object]]) -> Exception | None:
    return DataError("spool_depth is too large") if any(row[3] == 666 for row in rows) else None


def letters(pipeline: Pipeline) -> list[str]:
    return [headers(message)["error"] for message in pipeline.dead_letters()]


def test_a_server_that_is_out_of_memory_is_waited_for_and_buries_nothing(
    pipeline: Pipeline, indexer: Indexer, driver: Driver
) -> None:
    before = committed(pipeline.settings, ROBOT_STATUS)
    driver.raises["raw_robot_status"] = busy
    for depth in (1, 2, 3):
        put(pipeline, ROBOT_STATUS, heartbeat(depth))
    turns(indexer, lambda: driver.tries >= 3)
    assert committed(pipeline.settings, ROBOT_STATUS) == before
    driver.raises.clear()
    turns(indexer, lambda: committed(pipeline.settings, ROBOT_STATUS) == before + 3)
    assert [row[3] for row in driver.rows["raw_robot_status"]] == [1, 2, 3]
    assert letters(pipeline) == []


def test_a_record_that_is_refused_is_buried_once_however_long_another_table_is_away(
    pipeline: Pipeline, indexer: Indexer, driver: Driver
) -> None:
    before = committed(pipeline.settings, ROBOT_STATUS)
    driver.raises = {"raw_robot_status": too_deep, "raw_policy_activations": busy}
    put(pipeline, ROBOT_STATUS, heartbeat(666))
    put(pipeline, ROBOT_STATUS, heartbeat(4))
    put(pipeline, POLICY_ACTIVATIONS, activation())
    turns(indexer, lambda: driver.tries >= 6)
    driver.raises.pop("raw_policy_activations")
    turns(
        indexer,
        lambda: (
            committed(pipeline.settings, ROBOT_STATUS) == before + 2 and "raw_policy_activations" in driver.rows
        ),
    )
    assert letters(pipeline) == ["RowsRefused: DataError: spool_depth is too large"]
    assert len(driver.rows["raw_policy_activations"]) == 1


def test_offsets_wait_until_a_dead_letter_is_stored(
    pipeline: Pipeline, indexer: Indexer, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, buried = committed(pipeline.settings, ROBOT_STATUS), len(letters(pipeline))
    lost: list[str] = []

    def refuse(record: object, on_delivery: Callable[[str | None, int], None] | None = None) -> bool:
        assert on_delivery is not None
        lost.append(str(record))
        on_delivery("Broker: Not enough in-sync replicas", -1)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(indexer._dead, "send", refuse)
        pipeline.send_raw(ROBOT_STATUS, b"robot", b"no frame")
        pipeline.flush()
        turns(indexer, lambda: len(lost) >= 2)
        assert committed(pipeline.settings, ROBOT_STATUS) == before
    turns(indexer, lambda: committed(pipeline.settings, ROBOT_STATUS) == before + 1)
    assert len(letters(pipeline)) == buried + 1
    assert DEAD_LETTERS not in driver.rows


def test_a_database_that_does_not_exist_ends_the_index_with_what_to_run(pipeline: Pipeline) -> None:
    put(pipeline, ROBOT_STATUS, heartbeat(5))
    done = run(["sop", "index"], os.environ | {"SOP_CLICKHOUSE__DATABASE": "nobody_made_it"})
    said = done.stderr.splitlines()
    assert (done.returncode, [line for line in said if "Traceback" in line]) == (1, [])
    assert re.match(r"error: index: .*nobody_made_it.*run `sop deploy`$", said[-1]), said[-1]
