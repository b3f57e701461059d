"""One simulated robot on one Meta-World task: reset, step, and nothing about policies or networks.

Everything is a function of (task, seed, episode seed, actions): equal ones give bitwise equal states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import metaworld
import mujoco
import numpy as np
from numpy.typing import NDArray

from examples.metaworld.tasks import Task

Vector = NDArray[np.float32]
Position = NDArray[np.float64]

ACTION_NAMES = ("hand_dx", "hand_dy", "hand_dz", "gripper_effort")

_AXES = "xyz"
STATE_NAMES: tuple[str, ...] = (
    *(f"hand_{axis}" for axis in _AXES),
    "gripper_opening",
    *(f"object_{axis}" for axis in _AXES),
    *(f"goal_{axis}" for axis in _AXES),
    *(f"hand_velocity_{axis}" for axis in _AXES),
    *(f"hand_to_object_{axis}" for axis in _AXES),
    *(f"object_to_goal_{axis}" for axis in _AXES),
    "hand_to_object_horizontal",
    "hand_to_object_distance",
    "object_to_goal_distance",
    "object_raised",
)

# An object is dropped when it was raised by so much, lost as much again, and the hand is not at it.
_DROP_METRES = 0.04
_HELD_METRES = 0.06
# The gripper's fingers are at most 0.1 m apart; Meta-World reports their opening as a share of it.
_WIDEST_GRIP_METRES = 0.1


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What deployment adds to every commanded motion; the gripper's effort stays as commanded.

    action_noise: standard deviation of Gaussian noise, in units of the action (1 is 1 cm).
    kick_probability: chance per step that a kick begins: the command is replaced by one random motion.
    kick_steps: for how many steps.
    """

    action_noise: float = 0.0
    kick_probability: float = 0.0
    kick_steps: int = 10

    def __post_init__(self) -> None:
        if not (self.action_noise >= 0 and 0 <= self.kick_probability <= 1 and self.kick_steps >= 1):
            raise ValueError(f"no such disturbance: {self}")


UNDISTURBED = Disturbance()
DEPLOYMENT = Disturbance(action_noise=0.2, kick_probability=0.01)


class StepResult(NamedTuple):
    """What one step led to.

    state: float32[len(STATE_NAMES)], metres and shares of one.
    reward: 0 at success, else -1 (RECAP, arXiv 2511.14759; the failed end's penalty is the learner's).
    done: the episode is over; without success it was given up at the task's max_steps.
    success: object and goal are within the task's success radius.
    """

    state: Vector
    reward: float
    done: bool
    success: bool


class World:
    """A simulated robot, its object and its goal.

    `observation` is Meta-World's own 39-vector for its scripted experts; a policy sees `state` only.
    """

    def __init__(self, task: Task, seed: int, disturbance: Disturbance = UNDISTURBED) -> None:
        """Raise ValueError for a task that Meta-World does not know, or a negative seed."""
        environment = metaworld.env_dict.ALL_V3_ENVIRONMENTS.get(task.name)
        if environment is None:
            raise ValueError(f"Meta-World has no task {task.name!r}")
        if seed < 0:
            raise ValueError(f"a seed must not be negative, got {seed}")
        self.task = task
        self.disturbance = disturbance
        self._seed = seed
        self._env = environment()
        # Otherwise layouts come from the global np.random, and `seed()` has no effect (Meta-World 3.1).
        self._env.seeded_rand_vec = True
        self._env._freeze_rand_vec = False
        data = self._env.data
        self._hand = data.body("hand").xpos
        self._fingers = (data.body("rightclaw").xpos, data.body("leftclaw").xpos)
        self._running = False
        self.steps = 0

    def reset(self, episode_seed: int) -> Vector:
        """Begin an episode; its layout and its disturbances follow from the world's and this seed.

        Return the first state, float32[len(STATE_NAMES)]. Raise ValueError for a negative seed.
        """
        if episode_seed < 0:
            raise ValueError(f"an episode's seed must not be negative, got {episode_seed}")
        layout, disturbances = np.random.SeedSequence([self._seed, episode_seed]).spawn(2)
        env = self._env
        env.seed(int(layout.generate_state(1)[0]))
        self._random = np.random.default_rng(disturbances)
        mujoco.mj_resetData(env.model, env.data)
        # Not env.reset(): it lays the episode out twice (each time 250 physics steps).
        env.reset_model()
        self.steps = 0
        self._kick_steps_left = 0
        self._running = True
        self._previous_hand = self._hand.copy()
        self._look()
        self._lowest = self._highest = float(self._object[2])
        return self.state()

    def step(self, action: Vector) -> StepResult:
        """Command one motion, float32[4] as ACTION_NAMES, clipped to [-1, 1]; 1 is 1 cm or full effort.

        Raise ValueError for another shape, NaN or infinity; RuntimeError when no episode runs.
        """
        if not self._running:
            raise RuntimeError("the episode is over: call reset() before step()")
        if np.shape(action) != (4,) or not np.isfinite(action).all():
            raise ValueError(f"an action is 4 finite numbers, got {action!r}")
        command = np.clip(self._disturb(np.asarray(action, np.float64)), -1.0, 1.0)
        env = self._env
        self._previous_hand = self._hand.copy()
        # What SawyerXYZEnv.step does, less its observation and dense reward (see TASKS).
        env.set_xyz_action(command[:3])
        env.do_simulation([command[3], -command[3]], env.frame_skip)
        mujoco.mj_forward(env.model, env.data)
        self.steps += 1
        self._look()
        self._highest = max(self._highest, float(self._object[2]))
        success = bool(np.linalg.norm(self._object - self._goal) <= self.task.success_radius)
        self._running = not success and self.steps < self.task.max_steps
        return StepResult(self.state(), 0.0 if success else -1.0, not self._running, success)

    def state(self) -> Vector:
        """Return what the policy sees, float32[len(STATE_NAMES)]."""
        hand, thing, goal = self._hand, self._object, self._goal
        to_object, to_goal = thing - hand, goal - thing
        distances = (
            np.hypot(to_object[0], to_object[1]),
            np.linalg.norm(to_object),
            np.linalg.norm(to_goal),
            thing[2] - self._lowest,
        )
        parts = (hand, (self._grip,), thing, goal, hand - self._previous_hand, to_object, to_goal, distances)
        return np.concatenate(parts).astype(np.float32)

    @property
    def observation(self) -> Position:
        """Return Meta-World's observation, float64[39]; metres.

        Orientations and the frame before stay zero: no expert of TASKS reads them, as a test proves.
        """
        observation = np.zeros(39)
        observation[:3] = self._hand
        observation[3] = self._grip
        observation[4:7] = self._object
        observation[36:] = self._goal
        return observation

    @property
    def dropped(self) -> bool:
        """Whether the object was raised, fell, and lies away from the hand: anyone who watches sees it."""
        fallen = self._highest - float(self._object[2])
        raised = self._highest - self._lowest
        away = float(np.linalg.norm(self._object - self._hand))
        return fallen > _DROP_METRES and raised > _DROP_METRES and away > _HELD_METRES

    def _look(self) -> None:
        env = self._env
        self._object: Position = np.array(env._get_pos_objects()[:3])
        self._goal: Position = np.asarray(env._target_pos, np.float64)
        right, left = self._fingers
        self._grip = min(float(np.linalg.norm(right - left)) / _WIDEST_GRIP_METRES, 1.0)

    def _disturb(self, action: Position) -> Position:
        # No draw depends on the action, so two policies meet the same disturbances in the same episode.
        setting = self.disturbance
        moved = action.copy()
        if setting.action_noise > 0:
            moved[:3] += self._random.normal(0.0, setting.action_noise, 3)
        if setting.kick_probability > 0:
            if self._kick_steps_left == 0 and self._random.random() < setting.kick_probability:
                self._kick_steps_left = setting.kick_steps
                self._kick: Position = self._random.uniform(-1.0, 1.0, 3)
            if self._kick_steps_left > 0:
                self._kick_steps_left -= 1
                moved[:3] = self._kick
        return moved
