"""The takeover gate is a fold of what was seen: when it takes over, for how long, and why."""

import numpy as np
import pytest

from examples.metaworld.expert import Reason, TakeoverGate, TakeoverRule
from examples.metaworld.tasks import Task
from examples.metaworld.world import Vector

TASK = Task("pick-place-v3", "", 0.07, expert_steps=20)
RULE = TakeoverRule(command_gap=0.6, gap_steps=3, dropped_steps=2, overdue_share=1.5, hand_steps=4)
STILL = np.zeros(4, np.float32)
NEAR = np.array([0.59, 0, 0, 0], np.float32)
FAR = np.array([0.61, 0, 0, 0], np.float32)


def decisions(proposed: list[Vector], dropped: list[bool] | None = None) -> list[Reason | None]:
    gate = TakeoverGate(TASK, RULE)
    flags = dropped or [False] * len(proposed)
    return [gate.decide(p, STILL, dropped=d) for p, d in zip(proposed, flags, strict=True)]


def test_a_policy_that_stays_near_the_expert_keeps_control() -> None:
    assert decisions([NEAR] * 30) == [None] * 30


def test_wrong_motion_for_enough_steps_in_a_row_hands_over_and_back() -> None:
    seen = decisions([FAR] * 3 + [STILL] * 6)
    assert seen == [None, None, *[Reason.WRONG_MOTION] * 4, None, None, None]


def test_one_good_command_starts_the_count_again() -> None:
    assert decisions([FAR, FAR, NEAR, FAR, FAR, NEAR]) == [None] * 6


def test_wrong_motion_after_the_hand_back_is_counted_from_there() -> None:
    seen = decisions([FAR] * 9)
    assert seen == [None, None, *[Reason.WRONG_MOTION] * 4, None, None, Reason.WRONG_MOTION]


def test_a_dropped_object_hands_over() -> None:
    assert decisions([STILL] * 3, [True, True, False]) == [None, *[Reason.OBJECT_DROPPED] * 2]


def test_an_episode_longer_than_usual_hands_over_and_gives_the_policy_as_long_again() -> None:
    seen = decisions([STILL] * 66)
    assert seen[:30] == [None] * 30
    assert seen[30:34] == [Reason.OVERDUE] * 4
    assert seen[34:64] == [None] * 30
    assert seen[64:] == [Reason.OVERDUE] * 2


@pytest.mark.parametrize("length", [1, 7, 40])
def test_the_same_sight_gives_the_same_decisions(length: int) -> None:
    commands = list(np.random.default_rng(1).uniform(-1, 1, (length, 4)).astype(np.float32))
    assert decisions(commands) == decisions(commands)
