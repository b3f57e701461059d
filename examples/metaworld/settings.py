"""The demo's numbers, in one place: what the fleet plays, how long, and how it learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from examples.metaworld.expert import TakeoverRule
from examples.metaworld.tasks import RESET_SECONDS, STEP_SECONDS, TASKS, Task
from examples.metaworld.world import DEPLOYMENT, Disturbance

POLICY = "metaworld"
"""Name of the policy line."""

EVALUATION_SEED = 777
"""The layouts that judge every policy of every run: the same worlds whatever `--seed` says."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """One run of a simulated fleet; times in simulated minutes.

    policy, algorithm: the line that the robots follow, and what trains it.
    step_seconds, reset_seconds: simulated seconds that a control step and a reset take.
    demonstrations_per_task: successful ones, undisturbed, by the whole fleet together.
    minutes, interval_minutes: how long the fleet runs, and how often the learner publishes.
    updates_per_interval: gradient steps between two versions, however many robots there are.
    evaluations_per_task, evaluation_seed: episodes of the fixed set, disturbed as in deployment.
    mixing: of online and offline data, `adaptive` (SOP's) or `fixed` at `online_share`.
    adaptive_alpha: boosts the losses of online data in the adaptive one.
    failed_weight: of corrections in episodes that failed (`learner.algorithms.hg_dagger`).
    guidance, judged_guidance: RECAP's β at work and on the fixed set, 1 being none; arXiv 2511.14759 has 1.0 in
        rollouts, 1.5 to 2.5 in evaluation. Policies that are not told their advantage do not heed it.
    patience: wall seconds that robots and learner wait for one another.
    """

    policy: str = POLICY
    algorithm: str = "hg-dagger"
    step_seconds: float = STEP_SECONDS
    reset_seconds: float = RESET_SECONDS
    tasks: tuple[Task, ...] = TASKS
    disturbance: Disturbance = DEPLOYMENT
    rule: TakeoverRule = field(default_factory=TakeoverRule)
    demonstrations_per_task: int = 3
    minutes: float = 60.0
    interval_minutes: float = 5.0
    evaluations_per_task: int = 40
    evaluation_seed: int = EVALUATION_SEED
    pretrain_steps: int = 1500
    updates_per_interval: int = 400
    batch_size: int = 128
    mixing: Literal["adaptive", "fixed"] = "adaptive"
    adaptive_alpha: float = 1.5
    online_share: float = 0.5
    ema_half_life: float = 150.0
    learning_rate: float = 1e-3
    chunk: int = 2
    failed_weight: float = 1.0
    guidance: float = 1.0
    judged_guidance: float = 1.0
    patience: float = 180.0

    def to_json(self) -> str:
        """As `from_json` takes it; how the settings reach the robots' processes."""
        return _adapter().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> FleetSettings:
        """Settings of a run; what the text leaves out is the demo's.

        Raises:
            pydantic.ValidationError: the text is no such settings.
        """
        return _adapter().validate_json(text)

    @property
    def intervals(self) -> int:
        """How many versions follow the base."""
        return round(self.minutes / self.interval_minutes)

    @property
    def interval_seconds(self) -> float:
        """Simulated seconds between two versions."""
        return self.interval_minutes * 60.0

    @property
    def evaluation_episodes(self) -> int:
        """Size of the fixed set."""
        return self.evaluations_per_task * len(self.tasks)

    def learner_environment(self, robots: int, seed: int) -> dict[str, str]:
        """The learner's settings (`infra.settings.LearnerSettings`) for a fleet of so many robots."""
        values: dict[str, object] = {
            "POLICY": self.policy,
            "ALGORITHM": self.algorithm,
            "SEED": seed,
            "BATCH_SIZE": self.batch_size,
            "MIXING": self.mixing,
            "ADAPTIVE_ALPHA": self.adaptive_alpha,
            "ONLINE_SHARE": self.online_share,
            "EMA_HALF_LIFE": self.ema_half_life,
            "LEARNING_RATE": self.learning_rate,
            "CHUNK": self.chunk,
            "HG_FAILED_WEIGHT": self.failed_weight,
            "PRETRAIN_EPISODES": self.demonstrations_per_task * len(self.tasks),
            "PRETRAIN_STEPS": self.pretrain_steps,
            "PUBLISH_EVERY": self.updates_per_interval,
            "SIMULATED_INTERVAL": self.interval_seconds,
            "SIMULATED_ROBOTS": robots,
            "SIMULATED_PATIENCE": self.patience / 6,
        }
        return {f"SOP_LEARNER__{name}": str(value) for name, value in values.items()}


def _adapter() -> TypeAdapter[FleetSettings]:
    return TypeAdapter(FleetSettings)


FLEET = FleetSettings()
"""What `sop demo` runs."""
