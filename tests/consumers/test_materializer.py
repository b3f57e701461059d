"""The loop: what fails is tried again with the same work and holds up nothing else; no turn takes too long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consumers.assembly import Sealed
from consumers.materializer import TURN_SECONDS
from consumers.payload import draft
from consumers.storing import store_wave
from infra.errors import KafkaUnavailable, OffsetsExpired, RegistryUnavailable, TransactionAborted
from infra.health import STALL_SECONDS
from infra.kafka import OutRecord
from schemas.events import RobotEvent
from schemas.topics import DEAD_LETTERS, ROBOT_STEPS, TRAINING_EPISODES
from tests.consumers.fakes import Rig, restarted, rig, sample
from tests.consumers.robots import STATE, Robot, label, vector

POLL_INTERVAL = 300.0


def misfit(events: Sequence[RobotEvent], at: int) -> list[RobotEvent]:
    """The same events; one step's state has another length than its episode's start says."""
    return [
        event.model_copy(update={"state": vector(STATE + 1, 0.0)}) if n == at else event
        for n, event in enumerate(events)
    ]


def refusing(topic: str, number: int) -> object:
    """Transactions with a record of this partition are aborted."""

    def refuse(records: Sequence[OutRecord]) -> Exception | None:
        hit = any((record.topic, record.partition) == (topic, number) for record in records)
        return TransactionAborted(f"{topic} takes no such record") if hit else None

    return refuse


def test_after_an_aborted_transaction_the_same_outbox_is_written(tmp_path: Path) -> None:
    member = rig(tmp_path)
    whole, sick = Robot("robot-1").episode(3), misfit(Robot("robot-2").episode(3), 2)
    member.brokers.send([*whole, *sick], 0)
    aborts = iter([TransactionAborted("stale")])
    member.brokers.refuse = lambda records: next(aborts, None) if records else None
    member.turns()
    assert sorted(member.brokers.announced(0)) == sorted([(whole[0].episode_id, 1), (sick[0].episode_id, 1)])
    assert member.brokers.buried(0) == [(ROBOT_STEPS, "4")]
    first, second = [records for records in member.brokers.transactions if records]
    assert first == second == 3
    assert member.ready() == (True, "ready")


@pytest.mark.parametrize("visible", [True, False])
def test_a_transaction_whose_outcome_is_unknown_is_settled_by_what_can_be_read(
    tmp_path: Path, *, visible: bool
) -> None:
    member, events = rig(tmp_path), Robot().episode(3)
    member.brokers.send(events, 0)
    unclear = iter([KafkaUnavailable("no answer")])

    def once(records: Sequence[OutRecord]) -> Exception | None:
        return next(unclear, None) if records else None

    if visible:
        member.brokers.unclear = once
    else:
        member.brokers.refuse = once
    seen = set()
    for _ in range(20):
        member.turns(1)
        seen.add(member.ready()[1])
    assert "no answer" in seen
    assert member.brokers.announced(0) == [(events[0].episode_id, 1)]
    assert member.ready() == (True, "ready")


def test_the_group_is_served_though_what_was_taken_in_is_all_that_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, events = rig(tmp_path), Robot().episode(3)
    member.brokers.send(events, 0)

    def away(*_: object) -> None:
        raise RegistryUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr("consumers.materializer.BATCH_BYTES", 1)
        patch.setattr("consumers.materializer.decode", away)
        member.turns(1)
        taken_in = len(member.group.polls)
        member.turns(10)
        assert len(member.group.polls) >= taken_in + 5, "all but those in which it is tried again"
    member.turns()
    assert member.brokers.announced(0) == [(events[0].episode_id, 1)]


def test_an_episode_that_cannot_be_stored_holds_its_own_partition_and_no_other(tmp_path: Path) -> None:
    member = rig(tmp_path)
    stuck, free = Robot("robot-1").episode(3), Robot("robot-2").episode(3)
    member.shelf.refused = stuck[0].episode_id
    member.brokers.send(stuck, 0)
    member.turns(5)
    later = Robot("robot-3").episode(3)
    member.brokers.send(later, 0)
    member.brokers.send(free, 1)
    member.turns()
    assert member.brokers.announced(1) == [(free[0].episode_id, 1)]
    assert member.brokers.announced(0) == []
    assert member.paused_numbers() == {0}
    ready, why = member.ready()
    assert not ready
    assert "partition 0 waits" in why
    assert stuck[0].episode_id in why
    member.shelf.refused = "nothing"
    member.turns(60)
    assert member.brokers.announced(0) == [(stuck[0].episode_id, 1), (later[0].episode_id, 1)]
    assert member.paused_numbers() == set()
    assert member.ready() == (True, "ready")


def test_a_payload_that_fails_in_a_way_that_nobody_foresaw_holds_its_own_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = rig(tmp_path)
    stuck, beside, free = (Robot(f"robot-{n}").episode(3) for n in range(3))

    def broken(episode: object, *args: object) -> object:
        if getattr(episode, "episode_id", "") == stuck[0].episode_id:
            raise ZeroDivisionError("so many parts")
        return draft(episode, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("consumers.storing.draft", broken)
        member.brokers.send([*stuck, *beside], 0)
        member.brokers.send(free, 1)
        member.turns()
        assert member.brokers.announced(1) == [(free[0].episode_id, 1)]
        assert not member.ready()[0]
        assert f"episode {stuck[0].episode_id} cannot be stored: ZeroDivisionError" in member.ready()[1]
        assert member.brokers.announced(0) == [], "an offset past the stuck episode would lose it"
    member.turns(60)
    assert sorted(member.brokers.announced(0)) == sorted([(stuck[0].episode_id, 1), (beside[0].episode_id, 1)])
    assert member.ready() == (True, "ready")


def test_what_a_topic_refuses_of_one_partition_is_found_by_itself_and_the_others_are_committed(
    tmp_path: Path,
) -> None:
    member = rig(tmp_path)
    sick, free = misfit(Robot("robot-1").episode(3), 2), Robot("robot-2").episode(3)
    member.brokers.refuse = refusing(DEAD_LETTERS, 0)  # type: ignore[assignment]
    member.brokers.send(sick, 0)
    member.brokers.send(free, 1)
    member.turns(40)
    assert member.brokers.announced(1) == [(free[0].episode_id, 1)]
    assert (member.brokers.announced(0), member.brokers.buried(0)) == ([], [])
    assert member.paused_numbers() == {0}
    assert "partition 0 waits: dead-letters takes no such record" in member.ready()[1]
    more = Robot("robot-3").episode(3)
    member.brokers.send(more, 1)
    member.turns(10)
    assert member.brokers.announced(1)[1:] == [(more[0].episode_id, 1)]
    member.brokers.refuse = lambda _: None
    member.turns(60)
    assert member.brokers.announced(0) == [(sick[0].episode_id, 1)]
    assert member.brokers.buried(0) == [(ROBOT_STEPS, "1")]
    assert member.ready() == (True, "ready")


def test_what_was_spilled_and_cannot_be_read_again_is_read_from_kafka(tmp_path: Path) -> None:
    member, events = rig(tmp_path, max_buffer_bytes=1), Robot().episode(40)
    member.brokers.send(events[:30], 0)
    member.turns(3)
    [spilled] = tmp_path.glob("materializer-*/*.arrow")
    spilled.write_bytes(b"damaged")
    member.brokers.send(events[30:], 0)
    member.turns()
    assert member.brokers.announced(0) == [(events[0].episode_id, 1)]
    [announced] = member.brokers.announcements(0)
    assert announced.step_count == 40
    assert member.ready() == (True, "ready")


def test_expired_offsets_end_the_process_with_what_they_say(tmp_path: Path) -> None:
    member = rig(tmp_path)
    member.group.expired = True
    with pytest.raises(OffsetsExpired):
        member.turns(1)


def longest_turn(member: Rig, turns: int) -> float:
    """Seconds of the longest, by the clock."""
    longest = 0.0
    for _ in range(turns):
        began = member.brokers.clock.monotonic()
        member.materializer.turn()
        longest = max(longest, member.brokers.clock.monotonic() - began)
    return longest


def silence(times: Sequence[float]) -> float:
    """The longest time without a look at the group."""
    return max(after - before for before, after in pairwise(times))


@pytest.mark.parametrize("labelled", [False, True])
def test_a_store_that_takes_two_seconds_a_call_does_not_keep_a_member_from_its_group(
    tmp_path: Path, *, labelled: bool
) -> None:
    member = rig(tmp_path)
    robots = [Robot(f"robot-{n}") for n in range(200)]
    episodes = [misfit(robot.episode(2, ends=labelled), 1) for robot in robots]
    for number, events in enumerate(episodes):
        member.brokers.send(events, number % 2)
    if labelled:
        member.turns()
        member = restarted(restarted(member, tmp_path / "1"), tmp_path / "2")
        for number, events in enumerate(episodes):
            said = label(events[0].episode_id, robot_id=events[0].robot_id, excluded=True)
            member.brokers.send([said], number % 2)
    member.shelf.seconds = 2.0
    # Calls of one wave come one after the other here: eight at once take an eighth of it.
    assert longest_turn(member, 120) < POLL_INTERVAL
    assert silence(member.group.polls) < POLL_INTERVAL
    if labelled:
        assert sum(len(member.brokers.announced(n)) for n in (0, 1)) == 400, "each in a revision of its own"
    else:
        assert sum(len(member.brokers.buried(n)) for n in (0, 1)) == 200


def test_a_long_history_is_read_without_losing_the_group_and_keeps_only_what_is_read_again(tmp_path: Path) -> None:
    old = rig(tmp_path / "old")
    robot = Robot()
    for _ in range(300):
        old.brokers.send(robot.episode(1), 0)
    last = robot.episode(1)
    old.turns()
    for topic, _ in [p for p in old.brokers.committed if p[1] == 0]:  # reset by an operator, without metadata
        at = len(old.brokers.logs[topic, 0])
        old.brokers.committed[topic, 0] = type(old.brokers.committed[topic, 0])(at)
    old.brokers.written[TRAINING_EPISODES, 0] *= 20
    member = restarted(old, tmp_path / "new")
    member.reader.seconds = 0.2
    member.brokers.send(last, 0)
    began = member.brokers.clock.monotonic()
    member.turns(1)
    assert member.brokers.clock.monotonic() - began > 1_000, "it took long"
    assert silence(member.group.polls) < 2 * TURN_SECONDS
    assert member.health.health()[0]
    assert len(member.materializer._owned[0].emitted) == 0, "nothing of it is read again"
    member.reader.seconds = 0.0
    member.turns()
    assert member.brokers.announced(0)[-1] == (last[0].episode_id, 1)


def test_gauges_tell_the_truth_while_nothing_goes_on(tmp_path: Path) -> None:
    member = rig(tmp_path)
    open_one = Robot("robot-1").episode(5, ends=False)
    member.shelf.refused = "episodes/"
    member.brokers.send([*open_one, *Robot("robot-2").episode(3)], 0)
    member.turns(5)
    member.brokers.send(Robot("robot-3").episode(10), 0)
    member.brokers.clock.advance(30.0)
    member.turns(3)
    assert sample("sop_materializer_episodes_open") == 1
    assert (sample("sop_materializer_oldest_episode_seconds") or 0) > 30
    assert sample("sop_materializer_partitions_held") == 1
    assert sample("sop_lag_records", topic=ROBOT_STEPS, partition="0") == 10
    member.brokers.refuse = lambda _: KafkaUnavailable("no answer")
    member.shelf.refused = "nothing"
    member.brokers.clock.advance(30.0)
    for _ in range(3):
        member.brokers.clock.advance(6.0)
        member.turns(2)
    assert not member.ready()[0]
    assert (sample("sop_materializer_oldest_episode_seconds") or 0) >= 0


def test_a_batch_and_a_wave_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waves: list[int] = []

    def counted(wave: Sequence[Sealed], *args: Any, **kwargs: Any) -> object:
        waves.append(len(wave))
        return store_wave(wave, *args, **kwargs)

    monkeypatch.setattr("consumers.storekeeper.store_wave", counted)
    monkeypatch.setattr("consumers.storekeeper.WAVE_BYTES", 1)
    monkeypatch.setattr("consumers.materializer.INTAKE", 10)
    monkeypatch.setattr("consumers.materializer.BATCH_BYTES", 1)
    member = rig(tmp_path)
    for n in range(4):
        member.brokers.send(Robot(f"robot-{n}").episode(20), 0)
    member.turns(2)
    assert sum(value for (_, number), value in member.group.positions.items() if number == 0) <= 20
    member.turns(40)
    assert len(member.brokers.announced(0)) == 4
    assert waves == [1] * 4


def test_turns_have_a_deadline_well_inside_of_what_others_take_for_a_stall() -> None:
    assert TURN_SECONDS * 5 < STALL_SECONDS < POLL_INTERVAL
