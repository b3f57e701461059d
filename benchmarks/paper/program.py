"""What is run: bases, runs, and the order in which they are worth having. Pure; `frozen.py` has the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from examples.metaworld.expert import TakeoverRule
from examples.metaworld.settings import FleetSettings
from infra.sections import LearnerSettings

HUMAN, PRIVILEGED = "human", "privileged"
"""Takeover rules: one that a person who watches could follow, and one that compares commands."""
HG_DAGGER, RECAP = "hg-dagger", "recap"

PROTOCOL = 2
"""Raised by hand when units come out otherwise for another reason than a setting: earlier results are stale.

2: who gives an episode up judges it to have failed (before, it ended unjudged, and RECAP saw no failure); SOP's
arms draw with SOP's sampler; RECAP is judged with guidance; offline and online data are matched by what is
trained on.
"""

DECIDING = (
    *("policy", "algorithm", "tasks", "disturbance", "rule", "step_seconds", "reset_seconds"),
    *("demonstrations_per_task", "minutes", "interval_minutes", "updates_per_interval"),
    *("evaluations_per_task", "evaluation_seed"),
    *("pretrain_steps", "batch_size", "mixing", "adaptive_alpha", "online_share", "ema_half_life"),
    *("learning_rate", "chunk", "failed_weight", "guidance", "judged_guidance"),
)
"""Settings of a fleet that results carry a digest of. Others have their defaults in a programme."""

LEARNER_DECIDING = (
    *("policy", "algorithm", "architecture", "seed", "batch_size", "mixing", "online_share", "adaptive_alpha"),
    *("adaptive_window", "adaptive_clip", "adaptive_normalise", "task_weights", "hg_autonomous_weight"),
    *("hg_takeover_steps", "hg_takeover_weight", "hg_failed_weight", "recap_failure_penalty", "recap_look_ahead"),
    *("recap_positive_share", "recap_positive_shares", "recap_threshold_steps", "recap_dropout"),
    *("recap_value_steps", "learning_rate", "pretrain_learning_rate", "ema_half_life", "hidden", "chunk"),
    *("cameras", "pretrain_episodes", "pretrain_steps", "publish_every", "max_updates_per_online_step"),
    *("checkpoints_kept", "checkpoint_every", "buffer_steps", "simulated_interval", "simulated_robots"),
)
"""Settings of the learner that results carry a digest of, defaults included.

One that is added to the learner is either added here too, and all results are stale, or to `NOT_DECIDING`.
"""

NOT_DECIDING = frozenset({"simulated_patience", "tensorboard"})
"""Settings of the learner that change no result: wall seconds, and where it writes what it did."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base policy: so many demonstrations a task with the program's base seed, and `extra` with another one.

    RECAP's begins as the other does, whose policy then plays by itself: its value function must see failures.
    """

    demonstrations: int
    extra: int = 0
    extra_seed: int = 0
    algorithm: str = HG_DAGGER

    @property
    def name(self) -> str:
        """Names its result."""
        more = f"-and-{self.extra}-seed{self.extra_seed}" if self.extra else ""
        return f"base-{self.demonstrations}{more}" + ("" if self.algorithm == HG_DAGGER else f"-{self.algorithm}")


@dataclass(frozen=True, slots=True)
class Run:
    """One fleet for three hours: `robots` of it, on `base`, publishing every `interval_minutes`.

    sop: its learner draws with SOP's adaptive sampler; else, off line, with fixed shares.
    """

    arm: str
    base: Base
    robots: int
    rule: str
    seed: int
    interval_minutes: float
    sop: bool = True

    @property
    def name(self) -> str:
        """Names its result."""
        return f"{self.arm}-seed{self.seed}"


Unit = Base | Run


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that decides a number in the tables.

    fleet: what all runs share; base_seed: of demonstrations and of the base's training.
    rules: by name; table 1's is the first, others are reported apart. fleets: sizes of table 1. threshold: success
        whose time is taken.
    seeds, fewer_seeds: those of table 1 with its rule, and of all else.
    evaluate_every: simulated minutes.
    rollouts: simulated minutes that the base plays alone for RECAP's.
    sizes: demonstrations a task of table 3's bases, the main one in the middle.
    matched: demonstrations a task beyond the main base's that have as many steps as SOP trains on in a run.
    seconds: what a unit takes, until there is one to go by.
    """

    fleet: FleetSettings
    base_seed: int
    rules: Mapping[str, TakeoverRule]
    fleets: Sequence[int]
    threshold: float
    seeds: range
    fewer_seeds: range
    evaluate_every: float
    rollouts: float
    sizes: tuple[int, int, int]
    matched: int
    seconds: float = 600.0

    @property
    def base(self) -> Base:
        """The one of tables 1 and 2."""
        return Base(self.sizes[1])

    def fleet_run(self, robots: int, rule: str, seed: int) -> Run:
        """A run of table 1."""
        return Run(f"fleet-{robots}-{rule}", self.base, robots, rule, seed, self.fleet.interval_minutes)

    def offline_run(self, algorithm: str, seed: int) -> Run:
        """Off line in two iterations: half of the time with one policy, training, the other half, training."""
        base = replace(self.base, algorithm=algorithm)
        return Run(f"offline-{algorithm}", base, max(self.fleets), HUMAN, seed, self.fleet.minutes / 2, sop=False)

    def online_run(self, algorithm: str, seed: int) -> Run:
        """SOP with this algorithm."""
        if algorithm == HG_DAGGER:
            return self.fleet_run(max(self.fleets), HUMAN, seed)
        base = replace(self.base, algorithm=algorithm)
        return Run(f"sop-{algorithm}", base, max(self.fleets), HUMAN, seed, self.fleet.interval_minutes)

    def sized_run(self, size: int, seed: int) -> Run:
        """SOP on a base of another size."""
        if size == self.base.demonstrations:
            return self.fleet_run(max(self.fleets), HUMAN, seed)
        name = f"sop-on-{Base(size).name}"
        return Run(name, Base(size), max(self.fleets), HUMAN, seed, self.fleet.interval_minutes)

    def table1(self, seeds: range | None = None) -> Iterator[Unit]:
        """Seed by seed, so that what there is can be shown; first the rule that a human could follow."""
        yield self.base
        for rule in self.rules:
            for seed in self.fleet_seeds(rule) if seeds is None else seeds:
                yield from (self.fleet_run(robots, rule, seed) for robots in self.fleets)

    def fleet_seeds(self, rule: str) -> range:
        """Of table 1 with this rule."""
        return self.seeds if rule == next(iter(self.rules)) else self.fewer_seeds

    def table2(self, seeds: range | None = None) -> Iterator[Unit]:
        """Methods."""
        yield self.base
        yield replace(self.base, algorithm=RECAP)
        for seed in self.fewer_seeds if seeds is None else seeds:
            for algorithm in (HG_DAGGER, RECAP):
                yield self.online_run(algorithm, seed)
                yield self.offline_run(algorithm, seed)

    def table3(self, seeds: range | None = None) -> Iterator[Unit]:
        """Sizes of the base, and more data off line."""
        yield from (Base(size) for size in self.sizes)
        for seed in self.fewer_seeds if seeds is None else seeds:
            yield from (self.sized_run(size, seed) for size in self.sizes)
            yield Base(self.base.demonstrations, self.matched, seed)

    def units(self, only: Sequence[str] = (), seeds: range | None = None) -> list[Unit]:
        """All of the tables asked for, in order, each once."""
        tables = {"table1": self.table1, "table2": self.table2, "table3": self.table3}
        chosen = only or list(tables)
        return list(dict.fromkeys(unit for name in tables if name in chosen for unit in tables[name](seeds)))

    def settings(self, unit: Unit) -> FleetSettings:
        """Of the fleet of a run, or of the robots that a base comes from.

        A base with more demonstrations takes as many gradient steps as a run's two parts do together.
        """
        base = unit if isinstance(unit, Base) else unit.base
        fleet = self.fleet if base.algorithm == HG_DAGGER else self.line(base.algorithm)
        if isinstance(unit, Base):
            more = self.online_updates if unit.extra else 0
            steps = fleet.pretrain_steps + more
            return replace(
                fleet, demonstrations_per_task=unit.demonstrations, mixing="fixed", pretrain_steps=steps
            )
        share = unit.interval_minutes / self.fleet.interval_minutes
        return replace(
            fleet,
            rule=self.rules[unit.rule],
            mixing=fleet.mixing if unit.sop else "fixed",
            interval_minutes=unit.interval_minutes,
            updates_per_interval=round(self.fleet.updates_per_interval * share),
        )

    @property
    def online_updates(self) -> int:
        """Gradient steps of a run after its base's."""
        return self.fleet.updates_per_interval * self.fleet.intervals

    def line(self, algorithm: str) -> FleetSettings:
        """The fleet on a policy line of its own, which this algorithm trains."""
        return replace(self.fleet, policy=f"{self.fleet.policy}-{algorithm}", algorithm=algorithm)

    def learner(self, unit: Unit) -> dict[str, str]:
        """The learner's settings for a unit, as its environment (`SOP_LEARNER__…`)."""
        fleet = self.settings(unit)
        if isinstance(unit, Run):
            return fleet.learner_environment(unit.robots, unit.seed)
        robots = 1 if unit.algorithm == HG_DAGGER else max(self.fleets)
        return fleet.learner_environment(robots, self.base_seed)

    def learner_settings(self, unit: Unit) -> LearnerSettings:
        """The same with all defaults: what a result says that it was trained with."""
        given = {name.removeprefix("SOP_LEARNER__").lower(): value for name, value in self.learner(unit).items()}
        return LearnerSettings.model_validate(given)

    def digest(self, unit: Unit) -> str:
        """Of all settings that decide a unit's result; a result with another one is not shown."""
        decides: dict[str, Any] = {
            "protocol": PROTOCOL,
            "unit": asdict(unit),
            "fleet": _chosen(self.settings(unit).to_json(), DECIDING),
            "learner": _chosen(self.learner_settings(unit).model_dump_json(), LEARNER_DECIDING),
            "base_seed": self.base_seed,
        }
        if isinstance(unit, Run):
            decides |= {"base": self.digest(unit.base), "evaluate_every": self.evaluate_every}
        elif unit.algorithm != HG_DAGGER:
            decides |= {"base": self.digest(replace(unit, algorithm=HG_DAGGER)), "rollouts": self.rollouts}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _chosen(document: str, names: Sequence[str]) -> dict[str, Any]:
    values = json.loads(document)
    return {name: values[name] for name in names}
