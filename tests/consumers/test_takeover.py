"""Partition numbers that come and go: what is taken over, waits, is skipped, or is somebody else's by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import TransactionAborted
from infra.kafka import OutRecord
from schemas.topics import ROBOT_STEPS, TRAINING_EPISODES
from tests.consumers.fakes import Written, restarted, rig, sample
from tests.consumers.robots import Robot


def test_a_partition_that_went_away_and_came_back_is_taken_over_anew(tmp_path: Path) -> None:
    member, events = rig(tmp_path), Robot().episode(5)
    member.brokers.send(events[:4], 0)
    member.turns(3)
    member.group.assign([1])
    member.group.assign([0, 1])
    member.brokers.send(events[4:], 0)
    member.turns()
    assert member.brokers.announced(0) == [(events[0].episode_id, 1)]


def test_a_partition_that_cannot_be_taken_over_waits_by_itself(tmp_path: Path) -> None:
    member = rig(tmp_path)
    stuck, free = Robot("robot-1").episode(3), Robot("robot-2").episode(3)
    member.group.untold = {0}
    member.brokers.send(stuck, 0)
    member.brokers.send(free, 1)
    member.turns()
    assert member.brokers.announced(1) == [(free[0].episode_id, 1)]
    assert member.paused_numbers() == {0}
    assert member.ready() == (False, "partition 0 waits: the coordinator moves")
    member.group.untold = set()
    member.turns(60)
    assert member.brokers.announced(0) == [(stuck[0].episode_id, 1)]
    assert member.paused_numbers() == set()
    assert member.ready() == (True, "ready")


def test_what_could_not_be_taken_over_is_forgotten_once_it_is_somebody_else_s(tmp_path: Path) -> None:
    member = rig(tmp_path)
    member.group.untold = {0}
    member.turns(3)
    member.group.assign([1])
    member.turns(3)
    assert member.ready() == (True, "ready")


def test_what_went_away_while_another_could_not_be_taken_over_is_not_committed(tmp_path: Path) -> None:
    member, events = rig(tmp_path / "one", commit_interval=10.0), Robot().episode(3)
    member.group.assign([0])
    member.brokers.send(events, 0)
    member.turns(2)
    member.brokers.clock.advance(10.0)
    assert member.brokers.announced(0) == [], "it waits for the next transaction"
    foreign = Written(OutRecord(topic=TRAINING_EPISODES, key=b"", value=b"", partition=1), 0)
    member.brokers.written[TRAINING_EPISODES, 1] = [foreign] * 150
    member.reader.seconds = 0.1
    other = restarted(member, tmp_path / "two")
    other.group.assign([])

    def moved() -> None:
        if len(member.group.polls) > served:
            member.group.assign([1])
            if not other.group.assigned:
                other.group.assign([0])
                other.turns()

    member.group.assign([0, 1])
    member.group.stopped = {1}
    served = len(member.group.polls) + 1
    member.group.meanwhile = moved
    member.turns(60)
    assert len(member.group.polls) > served
    assert member.brokers.announced(0) == [(events[0].episode_id, 1)]


def test_records_that_the_client_skips_are_read_again(tmp_path: Path) -> None:
    member, whole, more = rig(tmp_path), Robot().episode(6), Robot("robot-2").episode(6)
    member.brokers.send(whole[:3], 0)
    member.turns(2)
    skipped = sample("sop_materializer_records_skipped_total") or 0.0
    member.brokers.send(whole[3:], 0)
    member.group.positions[ROBOT_STEPS, 0] += 2
    member.turns(3)
    member.brokers.send(more, 0)
    member.turns()
    found = {event.episode_id: event for event in member.brokers.announcements(0)}
    assert {found[events[0].episode_id].step_count for events in (whole, more)} == {6}
    assert sample("sop_materializer_records_skipped_total") == skipped + 2


@pytest.mark.parametrize("killed", [False, True])
def test_more_dead_letters_than_a_transaction_takes_are_written_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    monkeypatch.setattr("consumers.committer.LETTERS", 20)
    member = rig(tmp_path / "one", episode_timeout=5.0)
    headless, whole = Robot().episode(90)[1:91], Robot("robot-2").episode(3)
    member.brokers.send(headless, 0)
    member.brokers.send(whole, 0)
    member.brokers.refuse = lambda records: TransactionAborted("too many") if len(records) > 30 else None
    if killed:
        brokers = member.brokers
        brokers.refuse = lambda _: TransactionAborted("no more") if len(brokers.buried(0)) >= 40 else None
    for _ in range(40):
        member.turns(1)
        member.brokers.clock.advance(1.0)
    if killed:
        assert len(member.brokers.buried(0)) == 40
        member.brokers.refuse = lambda _: None
        member = restarted(member, tmp_path / "two", episode_timeout=5.0)
        for _ in range(40):
            member.turns(1)
            member.brokers.clock.advance(1.0)
    assert sorted(int(offset) for _, offset in member.brokers.buried(0)) == list(range(90))
    assert member.brokers.announced(0) == [(whole[0].episode_id, 1)]
    assert member.brokers.committed[ROBOT_STEPS, 0].offset == 93
