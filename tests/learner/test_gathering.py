from __future__ import annotations

import threading
from pathlib import Path

from infra.clock import ManualClock
from infra.settings import LearnerSettings
from learner.frames import Room
from learner.gathering import Gathered, beginnings
from learner.intake import Intake
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from schemas.events import EpisodeSource
from tests.learner.synthetic import STATE, Synthetic, make_episode
from tests.learner.test_intake import Announcements
from tests.learner.test_payloads import Shelf


def demonstration(number: int, *, steps: int = 5, state: int = STATE) -> Synthetic:
    return make_episode(number, source=EpisodeSource.DEMONSTRATION, steps=steps, state=state)


def begun_with(directory: Path, made: list[Synthetic], wanted: int) -> list[tuple[int, list[str]]]:
    """Widths of the state of those kinds that a line could begin with, and ids of their demonstrations."""
    fetcher, gathered = PayloadFetcher(Shelf(made), Patience(threading.Event())), Gathered(Room(directory))
    intake = Intake(Announcements(made), fetcher, ManualClock())
    intake.poll(0.0)
    gathered.take(intake, list(intake.waiting.values()))
    fetcher.close()
    found = beginnings(gathered.by_kind(()), LearnerSettings(pretrain_episodes=wanted))
    return [
        (beginning.features[0].size, sorted(seen.record.episode_id for seen in ours)) for ours, beginning in found
    ]


def ids(*made: Synthetic) -> list[str]:
    return [one.record.episode_id for one in made]


def test_demonstrations_without_a_step_do_not_count(tmp_path: Path) -> None:
    empty = [demonstration(n, steps=0) for n in range(2)]
    assert begun_with(tmp_path, empty, 1) == []
    good = demonstration(2)
    assert begun_with(tmp_path, [*empty, good], 2) == []
    assert begun_with(tmp_path, [*empty, good], 1) == [(STATE, ids(*empty, good))]


def test_of_which_kind_there_are_most_is_asked_of_those_with_steps(tmp_path: Path) -> None:
    empty = [demonstration(n, steps=0, state=9) for n in range(3)]
    wide, narrow = demonstration(3, state=9), [demonstration(n) for n in (4, 5)]
    assert begun_with(tmp_path, [*empty, wide, *narrow], 1) == [(STATE, ids(*narrow)), (9, ids(*empty, wide))]
    assert begun_with(tmp_path, [*empty, wide, *narrow], 2) == [(STATE, ids(*narrow))]
