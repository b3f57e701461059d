"""Open episodes go to disk when memory is wanted back, and come back as they were."""

from __future__ import annotations

import errno
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import consumers.step_buffer
from consumers.assembly import Assembly, Sealed, never_started
from consumers.emitted import EmittedLog
from consumers.payload import build_payload
from consumers.ranges import RangeSet
from consumers.spill_folder import SpillFolder
from consumers.step_buffer import FAN
from infra.errors import DiskFull, SpillUnusable
from schemas.events import RobotEvent
from tests.consumers.robots import STATE, Log, Robot, decoded, vector


def nbytes(assembly: Assembly) -> int:
    return sum(episode.nbytes + episode.kept_bytes for episode in assembly.open.values())


def sealed_with_spills(events: list[RobotEvent], spill_after: set[int], folder: Path) -> Sealed:
    """The episode of these events, one record at a time, with everything moved to disk at some of them."""
    log, assembly, out = Log(), Assembly(EmittedLog(), 10.0), []
    for at, event in enumerate(events):
        out += assembly.add(decoded([log.append(event)])).sealed
        if at in spill_after:
            for episode in assembly.open.values():
                episode.spill(folder)
                assert episode.nbytes == 0
    [only] = out
    return only


@settings(deadline=None, max_examples=25)
@given(st.sets(st.integers(0, 14)), st.booleans())
def test_a_spilled_episode_has_the_same_payload(
    tmp_path_factory: pytest.TempPathFactory, spills: set[int], late_start: bool
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    events = Robot().episode(12, intervene_at=4)
    if late_start:
        events = [*events[1:], events[0]]
    plain = sealed_with_spills(events, set(), folder)
    spilled = sealed_with_spills(events, spills, folder)
    reference = build_payload(plain.episode, plain.closed_by, 1)
    assert build_payload(spilled.episode, spilled.closed_by, 1).data == reference.data
    del spilled
    assert list(folder.iterdir()) == [], "a file outlives its episode"


def test_a_misfit_that_was_on_disk_is_buried_with_its_own_bytes(tmp_path: Path) -> None:
    events = Robot().episode(4)
    events[2] = events[2].model_copy(update={"state": vector(STATE + 1, 1.0)})
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    places = [log.append(event) for event in events[1:]]
    assembly.add(decoded(places))
    for episode in assembly.open.values():
        episode.spill(tmp_path)
    (sealed,) = assembly.add(decoded([log.append(events[0])])).sealed
    assert [letter.origin for letter in sealed.episode.letters(RangeSet())] == [places[1]]


def test_events_on_disk_whose_start_never_comes_are_buried_with_their_own_bytes(tmp_path: Path) -> None:
    events = Robot().episode(4)[1:-1]
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    places = [log.append(event) for event in events]
    assembly.add(decoded(places))
    [episode] = assembly.open.values()
    episode.spill(tmp_path)
    assert [letter.origin for _, letter in never_started(episode)] == places


def test_the_largest_go_first_until_half_of_the_limit_is_free(tmp_path: Path) -> None:
    assembly, log = Assembly(EmittedLog(), 10.0), Log()
    for n, steps in enumerate((600, 10, 300)):
        assembly.add(decoded([log.append(event) for event in Robot(f"robot-{n}").episode(steps, ends=False)]))
    large, small, middle = assembly.open.values()
    folder = SpillFolder(tmp_path)
    held = nbytes(assembly)
    assert folder.make_room(assembly.open.values(), held) == 0
    assert folder.make_room(assembly.open.values(), held - 1) > 0
    assert large.nbytes == 0
    assert small.nbytes > 0
    assert middle.nbytes > 0
    assert nbytes(assembly) <= held // 2
    assert folder.nbytes() > 0
    folder.close()
    assert list(tmp_path.glob("materializer-*")) == []


def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    events = Robot().episode(50, ends=False)
    assembly.add(decoded([log.append(event) for event in events[:30]]))
    folder = SpillFolder(tmp_path)
    assert folder.make_room(assembly.open.values(), 1) > 0
    assembly.add(decoded([log.append(event) for event in events[30:]]))
    held = nbytes(assembly)

    def full(_part: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(consumers.step_buffer, "_table_of", full)
        with pytest.raises(DiskFull, match="No space left"):
            folder.make_room(assembly.open.values(), 1)
    assert nbytes(assembly) == held
    folder.make_room(assembly.open.values(), 1)
    [episode] = assembly.open.values()
    assert [s for part in episode.steps.steps() for s in part.sequence.tolist()] == list(range(1, 51))
    folder.close()


def test_a_disk_that_was_full_collects_no_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    assembly.add(decoded([log.append(event) for event in Robot().episode(50, ends=False)]))
    folder = SpillFolder(tmp_path)

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.ipc.new_stream", full)
        for _ in range(5):
            with pytest.raises(DiskFull):
                folder.make_room(assembly.open.values(), 1)
    assert list(folder.path.iterdir()) == []
    assert finalizers_of(folder.path) == 0
    folder.make_room(assembly.open.values(), 1)
    assert len(list(folder.path.iterdir())) == finalizers_of(folder.path) == 1
    folder.close()


def finalizers_of(folder: Path) -> int:
    """How many wait for the end of an object with a file in this folder; other tests' objects have theirs, too."""
    waiting = [info.args for info in weakref.finalize._registry.copy().values()]  # type: ignore[attr-defined]
    return sum(isinstance(each, Path) and each.parent == folder for args in waiting for each in args)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_somebody_else_removed_is_read_again_and_not_waited_for(tmp_path: Path, what: str) -> None:
    log, assembly, robot = Log(), Assembly(EmittedLog(), 10.0), Robot()
    events = robot.episode(100, ends=False)
    folder = SpillFolder(tmp_path)
    assembly.add(decoded([log.append(event) for event in events[:50]]))
    folder.make_room(assembly.open.values(), 1)
    [file] = folder.path.iterdir()
    file.unlink()
    if what == "folder":
        folder.path.rmdir()
    assembly.add(decoded([log.append(event) for event in events[50:]]))
    with pytest.raises(SpillUnusable, match="somebody else cleans up"):
        folder.make_room(assembly.open.values(), 1)
    again = Assembly(EmittedLog(), 10.0)
    again.add(decoded([log.append(event) for event in robot.episode(50, ends=False)]))
    assert folder.make_room(again.open.values(), 1) > 0
    folder.close()


@pytest.mark.parametrize("started", [True, False])
def test_parts_are_joined_in_memory_and_are_one_stream_on_disk(tmp_path: Path, *, started: bool) -> None:
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    events = Robot().episode(2_000, ends=False)
    places = [log.append(event) for event in events[not started :]]
    for place in places:
        assembly.add(decoded([place]))
    [episode] = assembly.open.values()
    buffer = episode.steps if started else episode.early
    assert len(list(buffer.parts())) < 3 * FAN
    expected = [steps.sequence.tolist() for steps in buffer.steps()]
    episode.spill(tmp_path)
    [(steps, records)] = buffer.parts()
    assert [s for part in expected for s in part] == steps.sequence.tolist() == list(range(1, 2_001))
    if not started:
        assert records is not None
        assert [records.origin(row) for row in steps.row.tolist()] == places


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_holds_is_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from consumers.spill_folder import SpillFolder;"
        "folder = SpillFolder(Path(sys.argv[1])); (folder.path / 'x.arrow').write_bytes(b'1');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.glob("materializer-*/x.arrow"))) == 1
    live = SpillFolder(tmp_path)
    other = SpillFolder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        [live.path.name, other.path.name]
    )
    live.close()
    other.close()
