"""Playing one episode in a world and recording it: who chooses each command, and who is said to have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from examples.metaworld.expert import Expert, Reason, TakeoverGate, TakeoverRule
from examples.metaworld.world import ACTION_NAMES, STATE_NAMES, Vector, World
from learner.policies import Policy
from producers.episode import Episode, InterventionRecording
from schemas.events import Feature

FEATURES = (
    Feature(name="state", shape=(len(STATE_NAMES),), names=STATE_NAMES),
    Feature(name="action", shape=(len(ACTION_NAMES),), names=ACTION_NAMES),
)
OPERATOR = "scripted-expert"


@dataclass(frozen=True, slots=True)
class Choice:
    """One command, float32[4]. With a `reason` a human chose it, and `proposed` is what the policy wanted."""

    action: Vector
    proposed: Vector | None = None
    reason: Reason | None = None


Pilot = Callable[[Vector], Choice]
"""Chooses the command for a state; made anew for each episode."""


@dataclass(slots=True)
class Outcome:
    """What the loop itself counted: calls of the client that returned."""

    steps: int = 0
    human_steps: int = 0
    interventions: int = 0
    success: bool = False
    final_state: Vector | None = None


def demonstrating(expert: Expert) -> Pilot:
    """The expert alone."""
    return lambda _state: Choice(expert.action())


class Autonomous:
    """The policy alone: plans a chunk, plays it to its end, plans again."""

    def __init__(self, policy: Policy, task: str) -> None:
        self._policy = policy
        self._task = task
        self._plan: deque[Vector] = deque()

    def __call__(self, state: Vector) -> Choice:
        """Play the plan's next command."""
        command = self.peek(state)
        self._plan.popleft()
        return Choice(command)

    def peek(self, state: Vector) -> Vector:
        """The command that comes next, float32[4], clipped to what the arm takes."""
        if not self._plan:
            self._plan.extend(np.clip(self._policy.act(state, self._task), -1.0, 1.0).astype(np.float32))
        return self._plan[0]

    def forget(self) -> None:
        """Drop the plan: the world did not follow it."""
        self._plan.clear()


class Supervised:
    """The policy under the eye of the expert, who takes over by the stated rule."""

    def __init__(self, world: World, expert: Expert, policy: Policy, rule: TakeoverRule) -> None:
        self._world = world
        self._expert = expert
        self._autonomous = Autonomous(policy, world.task.name)
        self._gate = TakeoverGate(world.task, rule)

    def __call__(self, state: Vector) -> Choice:
        """The policy's command, or the expert's while the gate says so."""
        proposed = self._autonomous.peek(state)
        command = self._expert.action()
        reason = self._gate.decide(proposed, command, dropped=self._world.dropped)
        if reason is None:
            return self._autonomous(state)
        self._autonomous.forget()
        return Choice(command, proposed, reason)


def play(world: World, layout: int, pilot: Pilot, episode: Episode) -> Outcome:
    """Play one episode to its end and record its steps and interventions; the caller records the end.

    Raises:
        RobotClientError: a step could not be recorded.
    """
    state = world.reset(layout)
    outcome = Outcome()
    taken: InterventionRecording | None = None
    done = False
    while not done:
        choice = pilot(state)
        if choice.reason is not None and taken is None:
            taken = episode.intervention(operator=OPERATOR, reason=choice.reason).begin()
            outcome.interventions += 1
        elif choice.reason is None and taken is not None:
            taken.close()
            taken = None
        result = world.step(choice.action)
        episode.step(state=state, action=choice.action, reward=result.reward, proposed_action=choice.proposed)
        outcome.steps += 1
        outcome.human_steps += taken is not None
        state, done = result.state, result.done
        outcome.success = result.success
    outcome.final_state = state
    return outcome
