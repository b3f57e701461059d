"""The scripted expert, who plays the human operator, and the stated rule by which it takes over."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from metaworld.policies import ENV_POLICY_MAP
from metaworld.policies.policy import Policy

from examples.metaworld.tasks import Task
from examples.metaworld.world import Vector, World

# Its experts always ask for more than a step can give, and say so at every step.
warnings.filterwarnings("ignore", message="Constant\\(s\\) may be too high", module="metaworld")


class Expert:
    """Meta-World's own scripted policy for the world's task (nobody here wrote it)."""

    def __init__(self, world: World) -> None:
        self._world = world
        make: Callable[[], Policy] = ENV_POLICY_MAP[world.task.name]
        self._policy = make()

    def action(self) -> Vector:
        """Return the expert's command in the world's present state: float32[4], clipped to [-1, 1]."""
        command = self._policy.get_action(self._world.observation)
        return np.clip(command, -1.0, 1.0).astype(np.float32)


class Reason(StrEnum):
    """Why the human took over: the `reason` of the Intervention."""

    WRONG_MOTION = "wrong-motion"
    OBJECT_DROPPED = "object-dropped"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class TakeoverRule:
    """When the human takes over, and for how long. The steps are control steps of 0.4 simulated seconds.

    command_gap, gap_steps: WRONG_MOTION, when the policy's command was further than `command_gap`
        (Euclidean, all four numbers) from the expert's for `gap_steps` steps in a row. **Privileged**: it
        compares commands, which no person watching could compute; it stands for an operator's eye for
        motion that leads nowhere.
    dropped_steps: OBJECT_DROPPED, when the object has lain dropped for so many steps.
    overdue_share: OVERDUE, when the policy had control for longer than this share of the expert's
        usual episode.
    hand_steps: the human hands back after so many steps.
    """

    command_gap: float = 0.6
    gap_steps: int = 5
    dropped_steps: int = 5
    overdue_share: float = 1.5
    hand_steps: int = 40


class TakeoverGate:
    """HG-DAgger's gate (arXiv 1810.02890) over one episode: a fold of what was seen, with no other input."""

    def __init__(self, task: Task, rule: TakeoverRule) -> None:
        self._rule = rule
        self._overdue_steps = round(rule.overdue_share * task.expert_steps)
        self._reason: Reason | None = None
        self._human_steps_left = 0
        self._gap_steps = self._dropped_steps = self._policy_steps = 0

    def decide(self, proposed: Vector, expert: Vector, *, dropped: bool) -> Reason | None:
        """Say who acts in this step: the reason of the running takeover, or None for the policy.

        proposed, expert: float32[4], the two commands for the present state; dropped: `World.dropped`.
        """
        if self._human_steps_left > 0:
            self._human_steps_left -= 1
            if self._human_steps_left > 0:
                return self._reason
            self._gap_steps = self._dropped_steps = self._policy_steps = 0
        self._reason = self._judge(proposed, expert, dropped=dropped)
        if self._reason is not None:
            self._human_steps_left = self._rule.hand_steps
        return self._reason

    def _judge(self, proposed: Vector, expert: Vector, *, dropped: bool) -> Reason | None:
        rule = self._rule
        apart = float(np.linalg.norm(proposed - expert)) > rule.command_gap
        self._gap_steps = self._gap_steps + 1 if apart else 0
        self._dropped_steps = self._dropped_steps + 1 if dropped else 0
        self._policy_steps += 1
        if self._gap_steps >= rule.gap_steps:
            return Reason.WRONG_MOTION
        if self._dropped_steps >= rule.dropped_steps:
            return Reason.OBJECT_DROPPED
        if self._policy_steps > self._overdue_steps:
            return Reason.OVERDUE
        return None
