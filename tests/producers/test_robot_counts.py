"""Whatever a robot does, what it recorded is numbered and counted truly."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.robot import RobotClient
from schemas.events import Actor, EpisodeStarted, Intervention, InterventionPhase, Step
from tests.producers.fakes import MEMORY, robot, started
from tests.producers.test_robot import step

OPERATIONS = ("step", "bad step", "take over", "give back", "end", "raise")


@settings(deadline=None)
@given(episodes=st.lists(st.lists(st.sampled_from(OPERATIONS), max_size=30), max_size=5))
def test_whatever_a_robot_does_its_sequence_is_gapless_and_its_counts_are_true(episodes: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, robot(Path(name)) as (client, box):
        for operations in episodes:
            _play(client, operations)
    events = box.robot_events()
    assert [event.sequence for event in events] == list(range(len(events)))
    for episode_id in {event.episode_id for event in events}:
        _check([event for event in events if event.episode_id == episode_id])


def _play(client: RobotClient, operations: list[str]) -> None:
    taken = None
    try:
        with started(client) as episode:
            for operation in operations:
                match operation:
                    case "step":
                        step(episode)
                    case "bad step":
                        with pytest.raises(ValueError, match="shape"):
                            step(episode, state=np.zeros(1))
                    case "take over" if taken is None:
                        taken = episode.intervention(operator="a", reason="r").begin()
                    case "give back" if taken is not None:
                        taken.close()
                        taken = None
                    case "end":
                        episode.end(success=False)
                        return
                    case "raise":
                        raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def _check(events: list[Any]) -> None:
    assert isinstance(events[0].body, EpisodeStarted)
    ended = events[-1].body
    steps = [event for event in events if isinstance(event, Step)]
    begun = [e for e in events if isinstance(e, Intervention) and e.phase is InterventionPhase.BEGIN]
    over = [e for e in events if isinstance(e, Intervention) and e.phase is InterventionPhase.END]
    assert [event.index for event in steps] == list(range(len(steps)))
    assert (ended.step_count, ended.intervention_count) == (len(steps), len(begun))
    assert ended.first_sequence == events[0].sequence
    assert [e.intervention_id for e in begun] == [e.intervention_id for e in over]
    human = {
        index for e in over for index in range(e.first_step, (e.last_step or 0) + 1) if e.last_step is not None
    }
    assert human == {event.index for event in steps if event.actor is Actor.HUMAN}
