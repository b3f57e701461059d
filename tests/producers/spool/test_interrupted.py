"""A signal's handler raises while a robot records, at any instruction: what readers see is gapless and whole."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from structlog.testing import capture_logs

from infra.clock import ManualClock
from infra.settings import Settings
from producers.episode import Episode
from producers.errors import EpisodeOpen, Undelivered
from producers.policy_store import PolicyFile
from producers.robot import RobotClient
from producers.spool.directory import SpoolDirectory
from producers.spool.outbox import SpoolOutbox
from producers.spool.segment import SegmentReader
from schemas.codec import decode, event_type
from schemas.events import RobotEvent, Step
from tests.producers.fakes import MEMORY, announcement, sent, started
from tests.producers.spool.parts import ACTION, SMALL, STATE, NoPublisher, check_episodes

# Of each kind, human and robot, in an episode.
STEPS = 1
SETTINGS = Settings(robot=SMALL.model_copy(update={"segment_bytes": 2**13}))
# Where an event is made, written and counted; what only looks and checks is struck line by line.
BY_INSTRUCTION = tuple(
    f"producers.{name}" for name in ("event_log", "episode", "robot", "spool.store", "spool.segment")
)


class Struck(BaseException):
    """As KeyboardInterrupt: nobody's `except Exception` takes it."""


class Strike:
    """Raises once, at the instruction of that number, counted from entering the block on; 0: only counts."""

    def __init__(self, at: int = 0) -> None:
        self.seen = 0
        self._at = at

    def __enter__(self) -> Strike:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith("producers."):
            return None
        frame.f_trace_opcodes = name in BY_INSTRUCTION
        frame.f_trace_lines = not frame.f_trace_opcodes
        return self._ran

    def _ran(self, _frame: FrameType, event: str, _argument: object) -> Any:
        if event in ("opcode", "line"):
            self.seen += 1
            if self.seen == self._at:
                raise Struck
        return self._ran


class Recording:
    """A robot with a spool and nobody who publishes it; `returned` are the steps whose call came back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox = SpoolOutbox(
            SETTINGS, path / "spool", "arm", 1, ManualClock(), publish=lambda *_: NoPublisher()
        )
        self.client = RobotClient(
            SETTINGS, "arm", path, outbox=self.outbox, heartbeat_interval=None, close_timeout=0.0
        )
        self.returned: set[tuple[str, int]] = set()
        self.policy = PolicyFile(sent(announcement(1, b"policy")).event, path / "policy")

    def step(self, episode: Episode) -> None:
        episode.step(state=STATE, action=ACTION)
        self.returned.add((episode.episode_id, episode.step_count - 1))

    def whole(self) -> None:
        """A whole episode, as README writes one."""
        self.client.activate(self.policy)
        with started(self.client) as episode:
            for _ in range(STEPS):
                self.step(episode)
                with episode.intervention(operator="ada", reason="drifts"):
                    self.step(episode)
            episode.end(success=True)

    def give_up(self) -> None:
        """What closing the client does with an episode that is open."""
        self.client._settle()
        if self.client._episode is not None:
            self.client._episode.__exit__(None, None, None)

    def stubborn(self, call: Callable[[Callable[[], Any]], Any]) -> None:
        """An episode whose loop goes on after whatever its calls raise."""
        episode = call(lambda: started(self.client))
        if episode is None:
            with suppress(EpisodeOpen):
                episode = started(self.client)
        if episode is None:
            self.give_up()
            episode = started(self.client)
        for _ in range(STEPS):
            call(lambda: self.step(episode))
            taken = episode.intervention(operator="ada", reason="drifts")
            call(taken.begin)
            call(lambda: self.step(episode))
            call(taken.close)
        call(episode.end)
        call(self.give_up)

    def check(self) -> list[RobotEvent]:
        """What is on the disk, as a publisher and the next boot read it."""
        self.client._data_dir.release()
        self.outbox._store.close()
        directory = SpoolDirectory(self.path / "spool")
        positions, events = [], []
        for number in directory.numbers():
            reader = SegmentReader(directory.segment(number))
            for row in reader.read_all():
                positions.append(row.position)
                event = decode(event_type(row.kind.record), row.body)
                if isinstance(event, RobotEvent):
                    events.append(event)
            assert reader.damage is None
            assert reader.offset == reader.size, "something unfinished lies in it"
            reader.close()
        assert positions == list(range(1, len(positions) + 1))
        assert [event.sequence for event in events] == list(range(len(events)))
        check_episodes(events)
        assert self.returned <= {(e.episode_id, e.index) for e in events if isinstance(e, Step)}
        return events


@pytest.fixture
def recording() -> Iterator[Recording]:
    path = Path(tempfile.mkdtemp(prefix="spool-interrupted-", dir=MEMORY))
    try:
        with capture_logs():  # thousands of episodes
            made = Recording(path)
            for _ in range(3):
                made.whole()
            yield made
    finally:
        shutil.rmtree(path, ignore_errors=True)


def counted(work: Callable[[], None]) -> int:
    with Strike() as strike:
        work()
    return strike.seen


def test_ctrl_c_at_any_instruction_of_an_episode_leaves_a_spool_that_is_whole(recording: Recording) -> None:
    most = counted(recording.whole)
    assert most > 1_000
    for at in range(1, most, 2):
        with suppress(Struck), Strike(at):
            recording.whole()
        recording.give_up()
    events = recording.check()
    assert len({event.episode_id for event in events}) > 500


def test_a_loop_that_goes_on_after_an_interrupted_call_leaves_a_spool_that_is_whole(recording: Recording) -> None:
    def surely(call: Callable[[], Any]) -> Any:
        return call()

    most = counted(lambda: recording.stubborn(surely))
    assert most > 1_000
    for at in range(1, most, 5):

        def struck(call: Callable[[], Any]) -> Any:
            with suppress(Struck):
                return call()
            return None

        with suppress(Struck), Strike(at):
            recording.stubborn(struck)
        recording.give_up()
    recording.check()


def test_a_second_interrupt_while_the_first_is_put_right_changes_nothing(recording: Recording) -> None:
    chance, most, twice = random.Random(7), counted(recording.whole), 0
    for _ in range(200):
        with suppress(Struck), Strike(chance.randint(1, most)):
            recording.whole()
        try:
            with Strike(chance.randint(1, 300)):
                recording.give_up()
        except Struck:
            twice += 1
        recording.give_up()
    recording.check()
    assert twice > 5


@contextmanager
def signals(chance: random.Random, armed: list[bool]) -> Iterator[None]:
    """Signals to this thread, whose handler raises while the list is not empty."""

    def strike(_number: int, _frame: object) -> None:
        if armed:
            armed.clear()
            raise Struck

    over, main = threading.Event(), threading.get_ident()

    def send() -> None:
        while not over.wait(chance.uniform(0.0, 0.003)):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_storm_of_signals_leaves_a_spool_that_is_whole(recording: Recording) -> None:
    armed: list[bool] = []
    until, struck = time.monotonic() + 60.0, 0
    with signals(random.Random(7), armed):
        while struck < 100 and time.monotonic() < until:
            try:
                armed.append(True)
                recording.whole()
                armed.clear()
            except Struck:
                struck += 1
            except SystemError as error:
                # fastavro's compiled writer asks for an ABC's instance and does not look at what was raised there.
                if not isinstance(error.__cause__, Struck):
                    raise
                struck += 1
            recording.give_up()
    recording.check()


def test_after_an_interrupted_step_the_client_closes_and_says_what_is_kept(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    client, segment = recording.client, recording.outbox._store._segment
    episode = started(client)
    recording.step(episode)
    write = segment.append

    def interrupted(data: bytes) -> None:
        write(data)
        raise KeyboardInterrupt

    segment.append = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        recording.step(episode)
    segment.append = write  # type: ignore[method-assign]
    with pytest.raises(Undelivered, match="4 events"):
        client.close()
    reader = SegmentReader(SpoolDirectory(tmp_path / "spool").segment(1))
    assert [row.position for row in reader.read_all()] == [1, 2, 3, 4]
    reader.close()
