from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from examples.metaworld.demo.accounts import Account
from examples.metaworld.demo.live import View
from examples.metaworld.demo.watch import Pipeline
from examples.metaworld.ledger import PhaseBegan
from examples.metaworld.phases import WAITING, Phase
from infra.clock import ManualClock
from tests.examples.demo.test_accounts import WHOLE

PIPELINE = Pipeline(
    sent=5, materialized=4, indexed=3, versions=2, latencies={"publish_to_active": (0.5, None)}, trouble="down"
)


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    clock = ManualClock()
    accounts = {"robot-1": Account.of("robot-1", WHOLE)}
    with View(console, clock, minutes=60.0) as view:
        for _ in range(25):
            view.show("playing", accounts, PIPELINE)
            clock.advance(1.0)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    lines = shown(terminal=False).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "10", "20"]
    assert "5 episodes sent, 4 materialized, 3 in ClickHouse" in lines[0]
    assert lines[0].endswith("policy v2 · down")


def test_while_all_wait_for_the_first_version_it_says_that_the_base_is_being_trained() -> None:
    for waiting, versions, doing in (
        (True, 0, "training the base policy"),
        (False, 0, "playing"),
        (True, 1, "playing"),
    ):
        out = io.StringIO()
        at = datetime(2026, 1, 1, tzinfo=UTC)
        phases = [PhaseBegan(at=at, phase=Phase.DEMONSTRATIONS)]
        second = [PhaseBegan(at=at, phase=WAITING)] if waiting else phases
        accounts = {
            "robot-1": Account.of("robot-1", [*phases, PhaseBegan(at=at, phase=WAITING)]),
            "robot-2": Account.of("robot-2", second),
        }
        with View(Console(file=out), ManualClock(), minutes=60.0) as view:
            view.show("playing", accounts, Pipeline(versions=versions))
        assert f" {doing} (" in out.getvalue()


def test_on_a_terminal_of_80_columns_nothing_is_cut() -> None:
    text = shown(terminal=True)
    for word in ("robot-1", "takeovers", "episodes", "lag 1", "publish to active", "trouble", "v3"):
        assert word in text
    assert "…" not in text
