"""Queries of the console: bounded, shared, and told about when there is no answer."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from consumers.console.app import build
from consumers.console.asking import Trouble, Warehouse
from consumers.console.fleet import state_of
from infra.clock import ManualClock, SystemClock
from tests.consumers.console.conftest import World
from tests.consumers.console.fleet import ROBOTS


def test_a_query_that_takes_too_long_is_given_up_and_says_so(world: World) -> None:
    section = world.settings.console.model_copy(update={"query_seconds": 0.5})
    console = build(world.settings.model_copy(update={"console": section}), SystemClock())
    with pytest.raises(Trouble, match="longer than") as told:
        console.warehouse.ask("SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))")
    assert told.value.status == 504
    console.warehouse.close()


def test_the_live_table_waits_for_no_page_s_queries(world: World) -> None:
    section = world.settings.console.model_copy(update={"query_seconds": 2.0})
    console = build(world.settings.model_copy(update={"console": section}), SystemClock())
    while console.warehouse._running.acquire(blocking=False):  # as many slow queries as may run
        pass
    now = console.clock.now()
    assert state_of(console.live, now)["count"] >= len(ROBOTS)
    with pytest.raises(Trouble, match="busy"):
        state_of(console.warehouse, now)
    console.live.close()


def test_while_one_thread_waits_for_a_silent_server_others_are_told_and_not_held(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = world.settings.clickhouse.model_copy(update={"port": port})
        warehouse = Warehouse(settings, SystemClock(), seconds=0.2)
        told: list[Trouble] = []

        def ask() -> None:
            try:
                warehouse.ask("SELECT 1")
            except Trouble as trouble:
                told.append(trouble)

        first = threading.Thread(target=ask)
        first.start()
        held, _ = silent.accept()  # it has asked, and nobody answers
        with pytest.raises(Trouble, match="busy"):
            warehouse.ask("SELECT 2")
        assert not told, "the first one waits still"
        held.close()
    first.join(60)
    assert [trouble.status for trouble in told] == [503]


def test_who_waits_for_a_connection_is_told_why_there_is_none(world: World) -> None:
    """In place of trying it once more, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = world.settings.clickhouse.model_copy(update={"port": silent.getsockname()[1]})
        warehouse = Warehouse(settings, SystemClock(), seconds=30, at_once=3)
        causes: list[BaseException | None] = []

        def ask(question: str) -> None:
            try:
                warehouse.ask(question)
            except Trouble as trouble:
                causes.append(trouble.__cause__)

        threads = [threading.Thread(target=ask, args=(f"SELECT {number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        held, _ = silent.accept()
        while warehouse._running.acquire(blocking=False):
            warehouse._running.release()
            time.sleep(0.01)
        time.sleep(0.5)  # all three have begun; the others wait by then
    held.close()
    for thread in threads:
        thread.join(60)
    assert len(causes) == 3
    assert None not in causes
    assert len({id(cause) for cause in causes}) == 1


def test_answers_are_kept_no_longer_than_they_are_remembered_and_large_ones_not_at_all(world: World) -> None:
    clock = ManualClock()
    warehouse = Warehouse(world.settings.clickhouse, clock, seconds=60)
    sql = "SELECT toString(generateUUIDv4()) AS id"
    first = warehouse.ask(sql, remembered=10)
    clock.advance(9)
    assert warehouse.ask(sql, remembered=10) == first
    large = [warehouse.ask("SELECT generateUUIDv4() AS large", remembered=0) for _ in range(2)]
    assert large[0] != large[1]
    assert [list(answer.rows or ()) for answer in warehouse._answers.values()] == [first]
    clock.advance(2)
    other = warehouse.ask("SELECT 2 AS other")
    assert [list(answer.rows or ()) for answer in warehouse._answers.values()] == [other]
    warehouse.close()


def test_a_database_that_was_never_deployed_is_told_with_what_to_run(world: World) -> None:
    settings = world.settings.clickhouse.model_copy(update={"database": "console_tests_missing"})
    warehouse = Warehouse(settings, SystemClock())
    with pytest.raises(Trouble, match="console_tests_missing lacks") as told:
        warehouse.ask("SELECT 1")
    assert (told.value.status, "sop deploy" in told.value.advice) == (503, True)
