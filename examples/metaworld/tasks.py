"""The tasks of the simulated fleet, and the simulated seconds that a step and a reset take."""

from __future__ import annotations

from dataclasses import dataclass

# Commands move the hand by at most 1 cm, and a careful arm manages about 2.5 cm/s near objects.
STEP_SECONDS = 0.4
# A person puts the objects back by hand between two episodes.
RESET_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Task:
    """One Meta-World task as the fleet plays it.

    name: Meta-World's own name, also the `task` of every event.
    instruction: what a language-conditioned policy would be told.
    success_radius: metres between object and goal at which Meta-World itself calls the episode a success.
    expert_steps: median length of the scripted expert's successful episodes under deployment disturbances.
    max_steps: an episode that lasts longer is given up: its supervisor says that it failed.
    """

    name: str
    instruction: str
    success_radius: float
    expert_steps: int
    max_steps: int = 200


# Each moves one object to one goal and is judged by their distance alone, so that the world need not
# compute Meta-World's dense rewards to know of success. Under deployment disturbances the scripted expert
# succeeds in 85 % of 200 episodes, and a policy cloned from three demonstrations a task in 30 to 55 %.
TASKS: tuple[Task, ...] = (
    Task("pick-place-v3", "Pick up the puck and hold it at the goal.", 0.07, 61),
    Task("push-v3", "Push the puck along the table to the goal.", 0.05, 70),
    Task("coffee-push-v3", "Push the mug under the coffee machine.", 0.07, 60),
    Task("push-wall-v3", "Push the block around the wall to the goal.", 0.07, 89),
)
