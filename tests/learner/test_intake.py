from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.clock import ManualClock
from infra.telemetry import EPISODES_SET_ASIDE
from learner.episodes import Episode
from learner.errors import BadPayload, LearnerError, UnfitEpisode
from learner.frames import Room
from learner.gathering import Gathered
from learner.intake import Intake
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.set_aside import SetAside
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, EpisodeSource, Feature, Position
from tests.learner.synthetic import ACTION, FEATURES, START, STATE, Synthetic, make_episode
from tests.learner.test_payloads import Shelf


@dataclass
class Announcements(EventStream[EpisodeMaterialized]):
    """A stream that holds what a test wrote, all of it at each look. The real one is met in integration tests."""

    made: list[Synthetic]
    sought: list[Mapping[int, int] | None] = field(default_factory=list)

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        self.sought.append(positions)

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:
        del timeout
        self._positions = {0: len(self.made)}
        return [Received(item.event, 0, offset, START) for offset, item in enumerate(self.made)]


def ids(intake: Intake) -> list[str]:
    return [left.episode_id for left in intake.set_aside]


@contextmanager
def set_aside_counted(reason: type[LearnerError], times: int = 1) -> Iterator[None]:
    """So many episodes are counted as set aside meanwhile, for this reason and no other."""
    before = _counted()
    yield
    grown = {name: value - before.get(name, 0.0) for name, value in _counted().items()}
    assert {name: value for name, value in grown.items() if value} == {reason.__name__: times}


def _counted() -> dict[str, float]:
    (metric,) = EPISODES_SET_ASIDE.collect()
    return {one.labels["reason"]: one.value for one in metric.samples if one.name.endswith("_total")}


def taken(made: Synthetic) -> tuple[Episode | None, Intake]:
    fetcher = PayloadFetcher(Shelf([made]), Patience(threading.Event()))
    intake = Intake(Announcements([made]), fetcher, ManualClock())
    intake.poll(0.0)
    (seen,) = intake.waiting.values()
    episode = intake.take(seen)
    fetcher.close()
    return episode, intake


def test_what_a_label_excludes_waits_no_longer_and_is_told_once_and_may_come_back() -> None:
    made = make_episode(1)
    out, back = (
        Synthetic(made.event.model_copy(update={"revision": n, "excluded": n == 2}), made.payload) for n in (2, 3)
    )
    stream = Announcements([made])
    fetcher = PayloadFetcher(Shelf([made]), Patience(threading.Event()))
    intake = Intake(stream, fetcher, ManualClock())
    intake.poll(0.0)
    assert [seen.record.revision for seen in intake.waiting.values()] == [1]
    stream.made.append(out)
    intake.poll(0.0)
    assert not intake.waiting
    assert intake.positions() == (Position(partition=0, offset=1),), "read again until it is decided"
    assert [seen.record.revision for seen in intake.leave_out()] == [2]
    assert (intake.leave_out(), ids(intake)) == ([], [made.event.episode_id])
    stream.made.append(back)
    intake.poll(0.0)
    (seen,) = intake.waiting.values()
    assert (seen.record.revision, intake.take(seen) is not None, ids(intake)) == (3, True, [])
    fetcher.close()


def test_what_was_set_aside_before_is_written_on_though_it_was_nothing() -> None:
    fetcher, aside = PayloadFetcher(Shelf([]), Patience(threading.Event())), SetAside()
    intake = Intake(Announcements([]), fetcher, ManualClock())
    intake.start(set_aside=aside)
    fetcher.close()
    assert intake.set_aside is aside


def test_an_episode_as_announced_is_taken() -> None:
    episode, intake = taken(make_episode(1))
    assert episode is not None
    assert ids(intake) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": (Feature(name="state", shape=(STATE + 1,)), FEATURES[1])}, BadPayload),
        ({"features": (FEATURES[0], Feature(name="action", shape=(ACTION, 2)))}, BadPayload),
        ({"features": (FEATURES[0],)}, UnfitEpisode),
        ({"features": ()}, UnfitEpisode),
        ({"fps": math.nan}, UnfitEpisode),
        ({"fps": math.inf}, UnfitEpisode),
    ],
)
def test_an_episode_whose_announcement_is_not_true_of_its_payload_or_of_any_robot_is_set_aside(
    change: dict[str, object], reason: type[LearnerError]
) -> None:
    made = make_episode(1)
    made = Synthetic(made.event.model_copy(update=change), made.payload)
    with set_aside_counted(reason):
        episode, intake = taken(made)
    assert episode is None
    assert ids(intake) == [made.event.episode_id]
    assert not intake.waiting


def refuse_wide(event: EpisodeMaterialized) -> None:
    if event.features[0].shape != (STATE,):
        raise UnfitEpisode("another kind of robot")


def test_what_the_announcement_shows_to_be_of_no_use_is_set_aside_without_a_look_at_its_payload() -> None:
    made = [make_episode(n, state=STATE + n % 2, robot=f"robot-{n}") for n in range(6)]
    shelf = Shelf(made)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()))
    intake = Intake(Announcements(made), fetcher, ManualClock())
    intake.require(refuse_wide)
    with set_aside_counted(UnfitEpisode, 3):
        assert len(intake.poll(0.0)) == 6, "whoever counts episodes sees all of them"
    assert list(intake.waiting) == [item.event.episode_id for item in made[::2]]
    assert ids(intake) == [item.event.episode_id for item in made[1::2]]
    assert {record.episode_id for record in intake.records()} == {item.event.episode_id for item in made}
    assert {record.robot_id for record in intake.records()} == {f"robot-{n}" for n in range(6)}
    for seen in list(intake.waiting.values()):
        assert intake.take(seen) is not None
    fetcher.close()
    assert set(shelf.asked) == {shelf.key(item.event.payload_uri) for item in made[::2]}
    assert intake.positions() == (Position(partition=0, offset=6),), "nothing is kept for a later look"


def test_what_waits_already_when_a_line_begins_is_looked_at_too() -> None:
    made = [make_episode(1), make_episode(2, state=STATE + 1)]
    fetcher = PayloadFetcher(Shelf(made), Patience(threading.Event()))
    intake = Intake(Announcements(made), fetcher, ManualClock())
    intake.poll(0.0)
    intake.require(refuse_wide)
    fetcher.close()
    assert (list(intake.waiting), ids(intake)) == ([made[0].event.episode_id], [made[1].event.episode_id])


def test_until_a_line_begins_of_all_but_demonstrations_a_position_is_kept_and_they_are_read_again() -> None:
    fleet = [make_episode(n) for n in range(2, 5)]
    made = [make_episode(1, source=EpisodeSource.DEMONSTRATION), *fleet]
    stream, shelf = Announcements(made), Shelf(made)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()))
    intake = Intake(stream, fetcher, ManualClock())
    intake.demonstrations_only = True
    intake.poll(0.0)
    intake.poll(0.0)
    assert list(intake.waiting) == [made[0].event.episode_id]
    intake.take(intake.waiting[made[0].event.episode_id])
    assert intake.positions() == (Position(partition=0, offset=1),), "nothing that is passed over is lost"
    intake.take_up_rest()
    assert stream.sought == [{0: 1}]
    intake.poll(0.0)
    assert list(intake.waiting) == [item.event.episode_id for item in fleet]
    intake.take_up_rest()
    assert stream.sought == [{0: 1}], "once is enough"
    fetcher.close()


class Crowded(Shelf):
    """Answers only when so many ask at the same time: who asks for one after the other waits."""

    at_once = 1

    def __init__(self, made: list[Synthetic]) -> None:
        super().__init__(made)
        self.inside, self.alone = 0, False
        self._changed = threading.Condition()

    def get(self, key: str) -> bytes:
        with self._changed:
            self.inside += 1
            self._changed.notify_all()
            self.alone |= not self._changed.wait_for(lambda: self.inside >= self.at_once, 30.0)
        return super().get(key)


def backlog(count: int, ahead: int) -> tuple[Crowded, PayloadFetcher, Intake]:
    """So many announcements, of whose payloads memory holds but a few at a time."""
    made = [make_episode(n, steps=5) for n in range(count)]
    shelf = Crowded(made)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), ahead=ahead, threads=4)
    intake = Intake(Announcements(made), fetcher, ManualClock())
    intake.poll(0.0)
    return shelf, fetcher, intake


def test_behind_a_backlog_the_window_is_filled_again_at_each_look_and_the_order_stays() -> None:
    shelf, fetcher, intake = backlog(count=24, ahead=4)
    announced = list(intake.waiting)
    taken: list[str] = []
    while intake.waiting:
        expected = min(4, len(intake.waiting))
        shelf.inside, shelf.at_once = 0, 1
        until = time.monotonic() + 60.0
        while len(found := intake.ready()) < expected:
            assert fetcher.steps_under_way == 5 * expected, "one look asks for all that there is room for"
            assert time.monotonic() < until
            time.sleep(0.001)
        for seen, episode in intake.take_each(found):
            assert episode is not None
            taken.append(seen.record.episode_id)
    fetcher.close()
    assert taken == announced


def test_a_backlog_is_fetched_by_several_threads_however_it_is_taken(tmp_path: Path) -> None:
    shelf, fetcher, intake = backlog(count=12, ahead=4)
    while len(intake.ready()) < 4:
        time.sleep(0.001)
    gathered, told = Gathered(Room(tmp_path)), list[int]()
    assert gathered.take(intake, list(intake.waiting.values())[:4], told.append) == 4
    shelf.inside, shelf.at_once = 0, 4
    assert gathered.take(intake, intake.waiting.values(), told.append) == 8
    fetcher.close()
    assert not shelf.alone
    assert told == [*range(1, 5), *range(1, 9)]
    assert not intake.waiting
