"""A loop that turns is healthy, one that stalls is not, and a server that is away only makes it not ready."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from infra import telemetry
from infra.clock import ManualClock
from infra.health import Health, HealthServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    return Health(clock, stall_after=10.0)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    server = HealthServer(health, 0)
    yield server
    server.close()


def ask(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_starting_process_is_healthy_and_not_ready(server: HealthServer) -> None:
    assert ask(server, "/health") == (200, "starting\n")
    assert ask(server, "/ready") == (503, "starting\n")


def test_a_loop_that_stalls_is_neither_healthy_nor_ready_until_it_turns_again(
    server: HealthServer, health: Health, clock: ManualClock
) -> None:
    health.beat()
    health.set_ready(True)
    clock.advance(10.0)
    assert ask(server, "/health")[0] == ask(server, "/ready")[0] == 200
    clock.advance(0.1)
    assert ask(server, "/health") == (503, "the loop turned 10.1 s ago: stalled, restart it\n")
    assert ask(server, "/ready")[0] == 503
    health.beat()
    assert ask(server, "/health")[0] == ask(server, "/ready")[0] == 200


def test_a_server_that_is_away_makes_the_process_not_ready_and_leaves_it_healthy(
    server: HealthServer, health: Health
) -> None:
    health.beat()
    health.set_ready(False, "127.0.0.1:9092: no answer")
    assert ask(server, "/health")[0] == 200
    assert ask(server, "/ready") == (503, "127.0.0.1:9092: no answer\n")


def test_metrics_are_served_beside_and_other_paths_are_not_found(server: HealthServer) -> None:
    telemetry.set_lags({("robot-steps", 1): 5, ("robot-steps", 2): 7})
    telemetry.set_lags({("robot-steps", 1): 6})
    status, text = ask(server, "/metrics")
    assert status == 200
    assert 'sop_lag_records{partition="1",topic="robot-steps"} 6.0' in text
    assert 'partition="2"' not in text, "a partition that went away is forgotten"
    assert ask(server, "/")[0] == 404


def test_a_taken_port_is_an_error_and_a_closed_server_frees_its_own(health: Health) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            HealthServer(health, port)
    first = HealthServer(health, port)
    first.close()
    HealthServer(health, port).close()


def test_a_client_that_says_nothing_keeps_nobody_waiting(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/health")[0] == 200
