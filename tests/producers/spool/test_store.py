"""The robot's end: rotation, room, and files that are not what they should be."""

from __future__ import annotations

import errno
import os
import resource
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from infra.clock import ManualClock
from infra.settings import RobotSettings
from producers.errors import SpoolFull, SpoolUnusable
from producers.spool import quota
from producers.spool.directory import SpoolDirectory
from producers.spool.framing import MARK, pack
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.segment import SegmentReader, SegmentWriter
from schemas.events import EpisodeBoundary, EpisodeEnd, EpisodeEnded, RobotEvent
from tests.producers.spool.parts import SMALL, Broker, Robot, drain, publisher

STEP_BYTES = 300


def wait_for_files(robot: Robot) -> None:
    until = time.monotonic() + 30
    while robot.store._old or robot.store._next is None:
        assert time.monotonic() < until
        time.sleep(0.001)


def sequences(broker: Broker) -> list[int]:
    return [event.sequence for event in broker.events() if isinstance(event, RobotEvent)]


def test_a_file_that_has_grown_is_followed_by_the_next_and_goes_once_kafka_has_it(tmp_path: Path) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path, 1, clock)
    robot.begin()
    for _ in range(5):
        robot.steps(30)
        wait_for_files(robot)
    directory = robot.store.directory
    assert len(directory.numbers()) > 4
    publishing = publisher(tmp_path, broker, clock)
    drain(publishing, broker, clock)
    assert sequences(broker) == list(range(151))
    assert len(directory.numbers()) == 2, "the one that is appended to, and the next"
    publishing.close(0)
    robot.store.close()


def test_a_file_that_nobody_ever_appends_to_holds_up_nothing(tmp_path: Path) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path, 1, clock)
    robot.begin()
    wait_for_files(robot)
    robot.store._create(robot.store._meta).close()  # as when its folder could not be synced after it was named
    publishing = publisher(tmp_path, broker, clock)
    for _ in range(3):
        robot.steps(60)
        wait_for_files(robot)
        drain(publishing, broker, clock)
    assert sequences(broker) == list(range(181))
    assert len(robot.store.directory.numbers()) == 2
    publishing.close(0)
    robot.store.close()


def test_what_is_open_over_several_files_is_ended_with_the_counts_of_all(tmp_path: Path) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path / "a", 1, clock)
    episode = robot.begin()
    for _ in range(4):
        robot.steps(30)
        wait_for_files(robot)
    episode.intervention(operator="ada", reason="r").begin()
    drain(publisher(tmp_path / "a", broker, clock), broker, clock)  # most files are gone
    after = Robot.boot(robot.killed(tmp_path / "b"), 2, clock)
    assert after.store.recovered == 1
    drain(publisher(tmp_path / "b", broker, clock), broker, clock)
    events = [event for event in broker.events() if isinstance(event, RobotEvent)]
    last = max(events, key=lambda event: event.sequence)
    assert isinstance(last, EpisodeBoundary)
    assert isinstance(last.body, EpisodeEnded)
    assert (last.boot_epoch, last.sequence) == (1, 123)
    assert (last.body.end, last.body.step_count, last.body.intervention_count) == (EpisodeEnd.ABORTED, 120, 1)
    assert last.body.final_state is None
    after.store.close()


def test_an_episode_is_refused_when_its_length_does_not_fit_the_bound(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"max_spool_bytes": 2**20, "segment_bytes": 2**16})
    robot = Robot.boot(tmp_path, 1, ManualClock(), settings)
    with pytest.raises(SpoolFull, match=r"no room for 5000 steps, ever: .* may hold 1\.0 MiB.*MAX_SPOOL_BYTES"):
        robot.store.room.reserve(5000, STEP_BYTES)
    robot.store.room.reserve(500, STEP_BYTES)
    robot.store.close()


def test_an_episode_that_fits_later_is_refused_until_kafka_took_some(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"max_spool_bytes": 2**20, "segment_bytes": 2**16})
    robot = Robot.boot(tmp_path, 1, ManualClock(), settings)
    steps = 3_000
    while True:
        try:
            robot.store.room.reserve(steps, STEP_BYTES)
            break
        except SpoolFull as full:
            assert "ever" in str(full)  # noqa: PT017 - the first that fits is what counts
            steps -= 50
    robot.begin()
    robot.steps(500)
    with pytest.raises(SpoolFull, match=rf"{steps} steps: .* at most 1\.0 MiB.* Wait until Kafka has taken some"):
        robot.store.room.reserve(steps, STEP_BYTES)
    robot.store.close()


def test_an_episode_is_refused_when_the_disk_would_have_too_little_left(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"min_free_bytes": 2**60})
    robot = Robot.boot(tmp_path, 1, ManualClock(), settings)
    with pytest.raises(SpoolFull, match="MIN_FREE_BYTES"):
        robot.store.room.reserve(1, STEP_BYTES)
    assert robot.store.room.warning() is not None
    robot.store.close()


def test_steps_fit_as_long_as_room_was_kept_and_ends_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL.model_copy(update={"max_spool_bytes": 2**20, "segment_bytes": 2**16})
    robot = Robot.boot(tmp_path, 1, ManualClock(), settings)
    robot.store.room.reserve(500, STEP_BYTES)
    episode = robot.begin()
    monkeypatch.setattr(SpoolDirectory, "used_bytes", lambda _self: 2**21)  # others filled it meanwhile
    robot.steps(500)
    with pytest.raises(SpoolFull, match="beyond the room that was kept"):
        robot.steps(1)
    with episode.intervention(operator="ada", reason="r"):
        pass
    episode.end()
    assert (episode.ended.step_count if episode.ended else None) == 500
    assert robot.log.next_sequence == 504
    robot.store.close()


def test_steps_beyond_the_room_that_was_kept_look_at_the_disk_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot.boot(tmp_path, 1, ManualClock())
    robot.store.room.reserve(10, STEP_BYTES)
    looks, used = 0, SpoolDirectory.used_bytes

    def look(directory: SpoolDirectory) -> int:
        nonlocal looks
        looks += 1
        return used(directory)

    monkeypatch.setattr(SpoolDirectory, "used_bytes", look)
    robot.begin()
    robot.steps(10 + 1_000)
    assert looks == 2
    robot.store.close()


def test_of_room_for_a_few_steps_no_more_are_taken_at_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot.boot(tmp_path, 1, ManualClock())
    robot.store.room.reserve(0, STEP_BYTES)
    robot.begin()
    left = SMALL.max_spool_bytes - 3 * quota.event_bytes(STEP_BYTES)
    monkeypatch.setattr(SpoolDirectory, "used_bytes", lambda _self: left)
    robot.steps(3)
    monkeypatch.setattr(SpoolDirectory, "used_bytes", lambda _self: SMALL.max_spool_bytes + 1)
    with pytest.raises(SpoolFull, match="beyond the room that was kept"):
        robot.steps(1)
    robot.store.close()


def test_an_episode_that_never_fits_is_refused_with_what_to_change(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"max_spool_bytes": 2**20, "segment_bytes": 2**16})
    robot = Robot.boot(tmp_path, 1, ManualClock(), settings)
    with pytest.raises(
        SpoolFull, match=r"500 steps, ever: max_steps=500 .* 10\.0 MiB of it for frames"
    ) as refused:
        robot.store.room.reserve(500, STEP_BYTES, 10 * 2**20)
    assert "a max_steps nearer to the episode's length" in str(refused.value)
    assert "Kafka" not in str(refused.value)
    robot.store.close()


def test_what_files_take_is_known_without_a_look_at_each(tmp_path: Path) -> None:
    directory = SpoolDirectory(tmp_path)
    sizes = {number: 100 * number for number in range(1, 7)}
    for number, size in sizes.items():
        directory.segment(number).write_bytes(bytes(size))
    (tmp_path / "reserve").write_bytes(bytes(10_000))
    assert directory.used_bytes() == sum(sizes.values())
    directory.segment(2).write_bytes(bytes(9_999))  # nobody does that: it was complete
    directory.segment(5).write_bytes(bytes(1_000))
    directory.segment(6).write_bytes(bytes(2_000))
    assert directory.used_bytes() == 100 + 200 + 300 + 400 + 1_000 + 2_000
    directory.delete(1)
    directory.delete(2)
    directory.segment(7).write_bytes(bytes(50))
    assert directory.used_bytes() == 300 + 400 + 1_000 + 2_000 + 50


def test_a_closed_store_writes_into_no_file_that_was_opened_since(tmp_path: Path) -> None:
    robot = Robot.boot(tmp_path / "spool", 1, ManualClock())
    robot.begin()
    wait_for_files(robot)
    robot.store.close()
    others = [(tmp_path / f"{number}.csv").open("w") for number in range(20)]
    with pytest.raises(SpoolUnusable, match="takes no event"):
        robot.steps(1)
    for other in others:
        other.close()
    assert all((tmp_path / f"{number}.csv").stat().st_size == 0 for number in range(20))


@pytest.mark.parametrize("body", [1, 150, 300, 5_000, 70_000])
def test_what_steps_take_on_the_disk_is_no_more_than_what_is_kept_for_them(tmp_path: Path, body: int) -> None:
    writer = SegmentWriter.create(tmp_path / "file", {}, tuple(NEWEST_KINDS.values()))
    before = (tmp_path / "file").stat().st_size
    for number in range(100):
        writer.append(pack(2**40 + number, 1, 1e9, b"t" * 55, b"b" * body))
    writer.close()
    assert (tmp_path / "file").stat().st_size - before == 100 * quota.event_bytes(body)


def test_a_disk_that_is_full_gives_way_to_the_room_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot.boot(tmp_path, 1, ManualClock(), RobotSettings(min_free_bytes=0))
    robot.store.room.reserve(200, STEP_BYTES)
    assert robot.store.directory.reserve_file.stat().st_size > 200 * STEP_BYTES
    robot.begin()
    robot.steps(10)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        """The kernel takes a write up to this size of the file, and no more, as it does on a full disk."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    given = robot.store.room.give_up_reserve

    def give_up_reserve() -> bool:
        limit(resource.RLIM_INFINITY)  # as the disk would have room again
        return given()

    monkeypatch.setattr(robot.store.room, "give_up_reserve", give_up_reserve)
    try:
        limit(robot.store._segment.path.stat().st_size + 700)  # in the middle of an event
        robot.steps(100)
        assert robot.store.directory.reserve_file.stat().st_size == 0
        monkeypatch.setattr(robot.store.room, "give_up_reserve", given)
        limit(robot.store._segment.path.stat().st_size + 700)
        before = robot.log.next_sequence
        with pytest.raises(SpoolFull, match=r"takes no event: .*File too large"):
            robot.steps(100)
        with pytest.raises(SpoolFull):
            robot.steps(1)
    finally:
        limit(resource.RLIM_INFINITY)
    assert robot.episode is not None
    robot.episode.end()
    assert robot.log.next_sequence > before
    broker, clock = Broker(), ManualClock()
    drain(publisher(tmp_path, broker, clock), broker, clock)
    assert sequences(broker) == list(range(robot.log.next_sequence))
    assert robot.store.directory.quarantined() == []
    robot.store.close()


def test_a_disk_that_is_full_when_the_next_file_begins_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path, 1, clock)
    robot.begin()
    wait_for_files(robot)
    while robot.store._segment.appended < SMALL.segment_bytes:
        robot.steps(1)
    publishing = publisher(tmp_path, broker, clock)
    write, calls = os.write, []

    def half(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) % 2 == 0:
            drain(publishing, broker, clock)  # the publisher sees what half a write left
            raise OSError(errno.ENOSPC, "no room")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("producers.spool.segment._os_write", half)
        for _ in range(2):
            with pytest.raises(SpoolFull, match="no room"):
                robot.steps(1)
    robot.steps(1)
    drain(publishing, broker, clock)
    assert sequences(broker) == list(range(robot.log.next_sequence))
    publishing.close(0)
    assert robot.store.directory.quarantined() == []
    robot.store.close()


def test_a_file_that_is_none_is_put_aside_and_named_and_the_others_are_sent(tmp_path: Path) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path / "a", 1, clock)
    robot.begin()
    for _ in range(4):
        robot.steps(30)
        wait_for_files(robot)
    path = robot.killed(tmp_path / "b")
    directory = SpoolDirectory(path)
    second = directory.numbers()[1]
    directory.segment(second).write_bytes(b"none of ours" * 1000)
    with capture_logs() as log:
        after = Robot.boot(path, 2, clock)
        drain(publisher(path, broker, clock), broker, clock)
    (aside,) = directory.quarantined()
    assert aside.read_bytes().startswith(b"none of ours")
    assert [entry for entry in log if str(aside) in entry.values()], log
    found = sequences(broker)
    assert found == sorted(found)
    assert 0 < len(found) < 122
    assert found[-1] == 121, "the end of what was open"
    after.store.close()


def test_of_a_damaged_file_all_that_can_be_read_is_sent_and_the_file_is_kept(tmp_path: Path) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path / "a", 1, clock)
    robot.begin()
    for _ in range(3):
        robot.steps(30)
        wait_for_files(robot)
    path = robot.killed(tmp_path / "b")
    directory = SpoolDirectory(path)
    damaged = directory.segment(directory.numbers()[0])
    data = bytearray(damaged.read_bytes())
    at = 0
    for _ in range(7):  # the header is the first
        at = data.index(MARK, at + 1)
    data[at + 60] ^= 1
    damaged.write_bytes(data)
    after = Robot.boot(path, 2, clock)
    drain(publisher(path, broker, clock), broker, clock)
    assert set(range(92)) - set(sequences(broker)) == {6}
    assert [found.name for found in directory.quarantined()] == [damaged.name]
    after.store.close()


def test_the_spool_of_another_process_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot.boot(tmp_path, 1, ManualClock())
    with robot.store.directory.exclusive(1):
        monkeypatch.setattr("producers.spool.store._PUBLISHER_PATIENCE", 0.05)
        with pytest.raises(SpoolUnusable, match="another process still sends"):
            Robot.boot(tmp_path, 2, ManualClock())
    robot.store.close()


@pytest.mark.parametrize("torn", [1, 5, 29, 30, 100, 399])
def test_a_write_that_a_kill_cut_short_is_no_damage(tmp_path: Path, torn: int) -> None:
    clock, broker = ManualClock(), Broker()
    robot = Robot.boot(tmp_path / "a", 1, clock)
    robot.begin()
    robot.steps(10)
    path = robot.killed(tmp_path / "b")
    directory = SpoolDirectory(path)
    file = directory.segment(1)
    data = file.read_bytes()
    file.write_bytes(data + pack(12, 0, 1.0, b"t" * 55, bytes(400))[:torn])
    after = Robot.boot(path, 2, clock)
    drain(publisher(path, broker, clock), broker, clock)
    assert sequences(broker) == list(range(12))
    assert directory.quarantined() == []
    after.store.close()


def test_half_made_files_of_a_kill_are_no_damage(tmp_path: Path) -> None:
    directory = SpoolDirectory(tmp_path)
    (tmp_path / "draft").write_bytes(b"half")
    robot = Robot.boot(tmp_path, 1, ManualClock())
    robot.begin()
    wait_for_files(robot)
    assert directory.quarantined() == []
    reader = SegmentReader(directory.segment(1))
    assert [row.position for row in reader.read_all()] == [1]
    reader.close()
    robot.store.close()
