from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import pytest

from infra.clock import ManualClock
from learner.episodes import Episode
from learner.intake import Intake
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, Feature, Position
from tests.learner.synthetic import ACTION, FEATURES, START, STATE, Synthetic, make_episode
from tests.learner.test_payloads import Shelf


@dataclass
class Announcements(EventStream[EpisodeMaterialized]):
    """A stream that holds what a test wrote. The real one is met in integration tests."""

    made: list[Synthetic]

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:
        del timeout
        self._positions = {0: len(self.made)}
        return [Received(item.event, 0, offset, START) for offset, item in enumerate(self.made)]


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
    assert (intake.leave_out(), list(intake.set_aside)) == ([], [made.event.episode_id])
    stream.made.append(back)
    intake.poll(0.0)
    (seen,) = intake.waiting.values()
    assert (seen.record.revision, intake.take(seen) is not None, intake.set_aside) == (3, True, {})
    fetcher.close()


def test_an_episode_as_announced_is_taken() -> None:
    episode, intake = taken(make_episode(1))
    assert episode is not None
    assert not intake.set_aside


@pytest.mark.parametrize(
    "change",
    [
        {"features": (Feature(name="state", shape=(STATE + 1,)), FEATURES[1])},
        {"features": (FEATURES[0], Feature(name="action", shape=(ACTION, 2)))},
        {"features": (FEATURES[0],)},
        {"features": ()},
        {"fps": math.nan},
        {"fps": math.inf},
    ],
)
def test_an_episode_whose_announcement_is_not_true_of_its_payload_or_of_any_robot_is_set_aside(
    change: dict[str, object],
) -> None:
    made = make_episode(1)
    made = Synthetic(made.event.model_copy(update=change), made.payload)
    episode, intake = taken(made)
    assert episode is None
    assert list(intake.set_aside) == [made.event.episode_id]
    assert not intake.waiting
