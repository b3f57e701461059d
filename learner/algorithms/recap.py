"""RECAP: a policy conditioned on whether an action was better than expected (π*0.6, arXiv 2511.14759).

As SOP uses it (arXiv 2601.03044, its section on algorithms): the value function is pre-trained, then frozen;
N = 50; human corrections are positive; loss on actions only.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import structlog
import torch

from learner.algorithms.advantage import n_step_advantages, rank_of
from learner.algorithms.base import Fitting, Metrics, unheard
from learner.algorithms.gradient import GradientAlgorithm
from learner.algorithms.ranked import Ranked
from learner.algorithms.returns import horizons, last_reward, monte_carlo_returns, outcome
from learner.algorithms.value import ValueFunction
from learner.episodes import Episode, EpisodeRecord
from learner.errors import InvalidArtifact
from learner.frames import Column, Room
from learner.policies.artifact import Arrays
from learner.policies.base import NEGATIVE, POSITIVE, UNCONDITIONED, Floats, TrainablePolicy
from learner.replay import Batch
from learner.selection import Selection
from schemas.events import EpisodeSource

NAME = "recap"
POSITIVE_SHARE = "positive_share"
READINGS = 2
"""How often `prepare` goes through the episodes: for the horizons, and for the returns."""

_HORIZONS = "recap.horizons"
# ε where no step of the policy is known yet: what a human did stays positive, and what failed is not.
_BEYOND_ALL = float(np.finfo(np.float32).max)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """RECAP's numbers; the paper's where it gives any.

    failure_penalty: C_fail as a share of the task's longest episode (ours: 1, which makes every failure −1).
    look_ahead: N, steps. positive_share: of the policy's steps, on which the task's threshold ε is the quantile;
    positive_shares: by task, for hard ones. threshold_steps: instead of a quantile, ε as so many steps of the
    task's longest episode. dropout: how often the indicator is withheld. value_steps: of the pre-training.
    """

    failure_penalty: float = 1.0
    look_ahead: int = 50
    positive_share: float = 0.4
    positive_shares: Mapping[str, float] = field(default_factory=dict)
    threshold_steps: float | None = None
    dropout: float = 0.3
    value_steps: int = 1000


class Recap(GradientAlgorithm):
    """Advantage-conditioned cloning of everything that was done, good or bad. Implements `Algorithm`.

    The buffer keeps advantages, not labels: another threshold labels all data anew, and needs no other value
    function. Until one was fitted, steps of the policy go without a label.
    """

    name = NAME

    def __init__(
        self, policy: TrainablePolicy, *, seed: int, ema_half_life: float, options: Options | None = None
    ) -> None:
        super().__init__(policy, seed=seed, ema_half_life=ema_half_life)
        self._options = options or Options()
        self._value = ValueFunction(policy.spec, seed=seed)
        self._horizons = np.zeros(len(policy.spec.tasks), np.int64)
        self._known: list[dict[str, Floats]] = [{} for _ in policy.spec.tasks]
        self._ranked = [Ranked() for _ in policy.spec.tasks]
        self._thresholds: npt.NDArray[np.float64] | None = None

    def prepare(self, episodes: Sequence[Episode], room: Room | None = None, fitting: Fitting = unheard) -> None:
        """Fit the value function to the returns of episodes whose outcome is known; it is frozen from then on.

        Of tasks without a failure among them it learns how long a success takes, and no more: the log names them.
        """
        tasks, options = self.spec.tasks, self._options

        def judged() -> Iterator[tuple[Episode, bool]]:
            for episode in episodes:
                if len(episode.frames) and (success := outcome(episode.record)) is not None:
                    yield episode, success

        self._horizons = horizons((episode for episode, _ in judged()), tasks)
        states = Column(room or Room(), np.float32, self.spec.state_size)
        places, returns = array("i"), array("f")
        outcomes = np.zeros((len(tasks), 2), np.int64)
        for episode, success in judged():
            task = tasks.index(episode.record.task)
            states.write(len(returns), episode.frames.states)
            places.extend([task] * len(episode.frames))
            told = monte_carlo_returns(
                episode.frames.index,
                success=success,
                horizon=int(self._horizons[task]),
                failure_penalty=options.failure_penalty,
            )
            returns.frombytes(told.tobytes())
            outcomes[task, int(success)] += 1
        count = int(outcomes.sum())
        if not count:
            _log.warning("value_function_not_fitted", reason="no episode TERMINATED with known success")
            return
        never_failed = [task for task, (failed, _) in zip(tasks, outcomes, strict=True) if not failed]
        if never_failed:
            _log.warning(
                "value_function_sees_no_failure",
                tasks=never_failed,
                advice="begin the line with episodes that TERMINATED in failure, too (`sop backfill`)",
            )
        loss = self._value.fit(
            states.rows[: len(returns)],
            np.frombuffer(places, np.int32),
            np.frombuffer(returns, np.float32),
            steps=options.value_steps,
            fitting=fitting,
        )
        states.close()
        failures = int(outcomes[:, 0].sum())
        _log.info("value_function_fitted", episodes=count, failures=failures, cross_entropy=round(loss, 4))

    def select(self, episode: Episode) -> Selection:
        """Every frame, with its advantage: +∞ where a human acted, unless in a demonstration that failed."""
        record, frames = episode.record, episode.frames
        task = self.spec.task_index(record.task)
        advantages = self._advantages(episode, task)
        failed = record.source is EpisodeSource.DEMONSTRATION and record.success is False
        known = advantages[~np.isnan(advantages) & ~frames.human]
        self.forget(record.episode_id)
        self._know(task, record.episode_id, known)
        if not failed:
            advantages[frames.human] = np.inf
        return Selection.of(np.ones(len(frames), np.bool_), advantages=advantages)

    def forget(self, episode_id: str) -> None:
        """Its steps no longer count for the threshold."""
        for known, ranked in zip(self._known, self._ranked, strict=True):
            if (gone := known.pop(episode_id, None)) is not None:
                ranked.remove(gone)
                self._thresholds = None

    def thresholds(self) -> npt.NDArray[np.float64]:
        """ε of each task, float64[tasks], over the policy's steps that are in the buffer now.

        Above every advantage but +∞ while a task has none.
        """
        if self._thresholds is None:
            self._thresholds = np.array([self._threshold(task) for task in range(len(self._known))])
        return self._thresholds

    def indicators(self, batch: Batch) -> npt.NDArray[np.int64]:
        """What the policy is told of each sample before dropout, int64[B]: I = 1[A > ε] of its task."""
        positive = batch.advantages > self.thresholds()[batch.tasks]
        labels = np.where(positive, POSITIVE, NEGATIVE)
        return np.where(np.isnan(batch.advantages), UNCONDITIONED, labels)

    def update(self, batch: Batch) -> Metrics:
        """The step; also told is which share of the samples here that have an advantage is positive."""
        metrics = super().update(batch)
        indicators = self.indicators(batch)
        if batch.ranks is not None:
            indicators = indicators[np.isin(batch.ranks, self.team.mine)]
        labelled = indicators[indicators != UNCONDITIONED]
        if not len(labelled):
            return metrics
        return replace(metrics, named={**metrics.named, POSITIVE_SHARE: float(np.mean(labelled == POSITIVE))})

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        """Loss of each sample under its indicator, or under none, float32[B]."""
        withheld = torch.rand(len(batch), generator=random).numpy() < self._options.dropout
        indicators = np.where(withheld, UNCONDITIONED, self.indicators(batch))
        return super().losses(replace(batch, indicators=indicators), random)

    def known_of(self, episode_id: str) -> bytes:
        """Advantages of the policy's steps, which the threshold counts wherever they lie."""
        found = (known[episode_id] for known in self._known if episode_id in known)
        return next(found, np.empty(0, np.float32)).tobytes()

    def hear_of(self, record: EpisodeRecord, known: bytes) -> None:
        """Take their advantages into the threshold."""
        self.forget(record.episode_id)
        self._know(self.spec.task_index(record.task), record.episode_id, np.frombuffer(known, np.float32))

    def state(self) -> Arrays:
        """Everything that decides the updates to come, the frozen value function included."""
        return {**super().state(), **self._value.state(), _HORIZONS: self._horizons.copy()}

    def load_state(self, state: Arrays) -> None:
        """Go on from `state`, bit for bit. Raise InvalidArtifact if it is another policy's."""
        super().load_state(state)
        if _HORIZONS not in state or state[_HORIZONS].shape != self._horizons.shape:
            raise InvalidArtifact("not a training state of RECAP for these tasks")
        self._value.load_state(state)
        self._horizons = np.array(state[_HORIZONS])

    def _advantages(self, episode: Episode, task: int) -> Floats:
        horizon = int(self._horizons[task])
        if horizon == 0:  # never fitted for this task
            return np.full(len(episode.frames), np.nan, np.float32)
        success = outcome(episode.record)
        return n_step_advantages(
            episode.frames,
            self._value.values(episode.frames.states, task),
            horizon=horizon,
            steps=self._options.look_ahead,
            ending=None if success is None else last_reward(success, self._options.failure_penalty),
        )

    def _know(self, task: int, episode_id: str, advantages: Floats) -> None:
        if len(advantages):
            self._known[task][episode_id] = advantages
            self._ranked[task].add(advantages)
            self._thresholds = None

    def _threshold(self, task: int) -> float:
        options = self._options
        if options.threshold_steps is not None:
            return options.threshold_steps / max(int(self._horizons[task]), 1)
        share = options.positive_shares.get(self.spec.tasks[task], options.positive_share)
        ranked = self._ranked[task]
        return ranked.at(rank_of(share, len(ranked))) if len(ranked) else _BEYOND_ALL
