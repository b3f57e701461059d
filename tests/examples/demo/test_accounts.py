from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.metaworld.demo.accounts import Account, discrepancies, evaluated
from examples.metaworld.ledger import (
    Activated,
    Closed,
    Ended,
    Entry,
    Ledger,
    LedgerReader,
    Opened,
    PhaseBegan,
    Started,
)
from schemas.events import EpisodeSource

AT = datetime(2026, 1, 1, tzinfo=UTC)


def started(name: str) -> Started:
    return Started(at=AT, episode_id=name, task="push", source=EpisodeSource.ONLINE)


def ended(
    name: str, source: EpisodeSource = EpisodeSource.ONLINE, version: int = 1, *, success: bool = True
) -> Ended:
    return Ended(
        at=AT,
        episode_id=name,
        task="push",
        source=source,
        policy_version=version,
        steps=10,
        human_steps=4,
        interventions=2,
        success=success,
        simulated_at=30.0 if source is EpisodeSource.ONLINE else None,
        layout=0,
    )


WHOLE: list[Entry] = [
    Opened(at=AT, robot_id="r", boot_epoch=1),
    PhaseBegan(at=AT, phase="online"),
    Activated(at=AT, version=3),
    started("a"),
    ended("a"),
    Closed(at=AT),
]


def test_a_ledger_adds_up() -> None:
    account = Account.of("r", WHOLE)
    assert (account.steps, account.interventions, account.policy_version) == (10, 2, 3)
    assert (account.simulated_seconds, account.phase, account.closed) == (30.0, "done", True)
    assert discrepancies({"r": account}) == []


def test_a_ledger_that_was_not_closed_proves_nothing() -> None:
    (said,) = discrepancies({"r": Account.of("r", WHOLE[:-1])})
    assert "r's ledger is not closed" in said


def test_an_episode_without_an_end_is_told() -> None:
    (said,) = discrepancies({"r": Account.of("r", [started("b"), *WHOLE])})
    assert "began 1 episodes that it did not end" in said


def test_a_robot_that_booted_again_must_close_again() -> None:
    account = Account.of("r", [*WHOLE, Opened(at=AT, robot_id="r", boot_epoch=2)])
    assert not account.closed


def test_evaluations_are_counted_by_version_over_all_robots() -> None:
    first = Account.of("a", [ended("1", EpisodeSource.EVALUATION, 1), ended("2", EpisodeSource.EVALUATION, 9)])
    second = Account.of("b", [ended("3", EpisodeSource.EVALUATION, 9, success=False), ended("4")])
    assert evaluated({"a": first, "b": second}) == {1: (1, 1), 9: (2, 1)}


def test_what_was_written_is_read_while_the_ledger_grows(tmp_path: Path) -> None:
    path = tmp_path / "robot" / "ledger.jsonl"
    reader = LedgerReader(path)
    assert reader.refresh() == []
    with Ledger(path) as ledger:
        for number, entry in enumerate(WHOLE):
            ledger.write(entry)
            assert reader.refresh() == WHOLE[: number + 1]
    with Ledger(path) as again:
        again.write(Closed(at=AT))
    assert reader.refresh() == [*WHOLE, Closed(at=AT)]


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(0, 400))
def test_a_line_that_is_being_written_is_left_for_later(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    with Ledger(path) as ledger:
        for entry in WHOLE:
            ledger.write(entry)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    reader = LedgerReader(path)
    assert reader.refresh() == WHOLE[: whole[:cut].count(b"\n")]
    path.write_bytes(whole)
    assert reader.refresh() == WHOLE
