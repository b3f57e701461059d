"""Telling training-progress what the learner does (losses, draws, admissions, positions), and training-lineage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import structlog

from infra.clock import Clock
from infra.errors import KafkaUnavailable
from infra.kafka import EventProducer, OutRecord
from infra.registry import Registry
from infra.settings import KafkaSettings
from infra.telemetry import LEARNER_STEP, UPDATES_SKIPPED
from learner.core import TrainingCore
from learner.episodes import EpisodeRecord
from learner.patience import Patience
from learner.sampler import ONLINE, Drawn, GroupLosses
from learner.wire import Encoder
from schemas.events import (
    Admission,
    EpisodeDraws,
    Position,
    TaskMixing,
    TrainingGroup,
    TrainingLineage,
    TrainingMetric,
    TrainingProgress,
)
from schemas.topics import TRAINING_LINEAGE, TRAINING_PROGRESS

if TYPE_CHECKING:
    from learner.board import Board

_FLUSH_SECONDS = 1.0
# Of one record of lineage, or of one report: some 45 bytes each, so that it stays well below a megabyte.
_EPISODES_PER_PART = 10_000

_log = structlog.get_logger(__name__)


class Means:
    """Means of what updates tell by name. What is no finite number is left out."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, named: Mapping[str, float]) -> None:
        """What one update told."""
        for name, value in named.items():
            if math.isfinite(value):
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def told(self) -> tuple[TrainingMetric, ...]:
        """The means so far, in the order of their names."""
        return tuple(
            TrainingMetric(name=name, value=total / self._counts[name])
            for name, total in sorted(self._sums.items())
        )


class ProgressReporter:
    """Gathers what happened since the last report.

    A report is on its way until Kafka has it, however long the brokers are away; `settle` and `tell_lineage` wait
    for that.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: Registry,
        policy: str,
        patience: Patience,
        clock: Clock,
        *,
        curves: Path | None = None,
    ) -> None:
        """`curves`: directory where what is reported becomes curves, too."""
        self._board: Board | None = None
        if curves is not None:
            from learner.board import Board  # noqa: PLC0415 - its imports take time that nobody else need pay

            self._board = Board(curves, policy)
        self._policy = policy
        self._clock = clock
        self._encoder = Encoder(registry, TRAINING_PROGRESS, TrainingProgress, patience)
        self._lineage = Encoder(registry, TRAINING_LINEAGE, TrainingLineage, patience)
        self._patience, self._timeout = patience, kafka.request_timeout
        self._producer = EventProducer(kafka, f"learner-progress-{policy}", delivery_timeout=None)
        self._losses: GroupLosses | None = None
        self._shares: list[npt.NDArray[np.float64]] = []
        self._skipped = 0
        self._means = Means()
        self._admitted: list[Admission] = []

    def note_update(self, drawn: Drawn) -> None:
        """One update was made."""
        self._losses = drawn.losses if self._losses is None else self._losses + drawn.losses
        self._shares.append(drawn.shares)
        self._skipped += drawn.skipped
        self._means.note(drawn.named)
        UPDATES_SKIPPED.inc(drawn.skipped)

    def note_admission(self, record: EpisodeRecord, seen_at: datetime) -> None:
        """An episode, whose announcement was read at `seen_at`, became available to training."""
        self._admitted.append(Admission(episode_id=record.episode_id, revision=record.revision, seen_at=seen_at))

    def report(self, core: TrainingCore, offsets: tuple[Position, ...], simulated_seconds: float | None) -> bool:
        """Send what was noted since the last report, if anything was; loss and share are 0 without draws.

        False if something stays noted for the next report: all of it if the producer's queue is full, and
        admissions beyond what one report may hold.
        """
        if self._losses is None and not self._admitted:
            return True
        losses = self._losses or GroupLosses.none(len(core.spec.tasks))
        event = TrainingProgress(
            policy=self._policy,
            learner_step=core.learner_step,
            reported_at=self._clock.now(),
            loss=losses.mean,
            groups=groups(core.spec.tasks, losses),
            mixing=mixing(core.spec.tasks, self._shares, core.learner_step),
            online_share=losses.online_share,
            episodes_admitted=len(core.episodes),
            steps_admitted=core.steps_admitted,
            admitted=tuple(self._admitted[:_EPISODES_PER_PART]),
            offsets=offsets,
            simulated_seconds=simulated_seconds,
            updates_skipped=self._skipped,
            metrics=self._means.told(),
        )
        LEARNER_STEP.set(core.learner_step)
        record = OutRecord(TRAINING_PROGRESS, self._policy.encode(), self._encoder.encode(event))
        sent = self._producer.send(record, partial(_say_if_lost, core.learner_step))
        self._producer.poll()
        if not sent:
            _log.warning("progress_waits", learner_step=core.learner_step, updates=len(self._shares))
            return False
        if self._board is not None and self._shares:
            self._board.show(event, core.learner_step - len(self._shares) + 1)
        self._losses, self._shares, self._skipped, self._means = None, [], 0, Means()
        self._admitted = self._admitted[_EPISODES_PER_PART:]
        return not self._admitted

    def settle(self, core: TrainingCore, offsets: tuple[Position, ...], simulated_seconds: float | None) -> None:
        """The same; return once Kafka has all that was ever noted.

        Raises:
            Stopped: a stop was asked for.
        """
        told = False
        while not told:
            told = self.report(core, offsets, simulated_seconds)
            self._patience.call("Kafka", self._flush)

    def tell_lineage(self, version: int, drawn: tuple[EpisodeDraws, ...]) -> None:
        """Say what a version was made from; returns once Kafka has it.

        Raises:
            Stopped: a stop was asked for.
        """
        for event in lineage(self._policy, version, drawn, self._clock.now()):
            key = f"{event.policy}/{event.version}/{event.part}".encode()
            record = OutRecord(TRAINING_LINEAGE, key, self._lineage.encode(event))
            self._patience.call("Kafka", partial(self._deliver, record, []))

    def _deliver(self, record: OutRecord, sent: list[list[str | None]]) -> None:
        """`sent`: its answers, by attempt. While it is on its way from an earlier one it is not sent again."""
        if sent and sent[-1] == [None]:
            return
        if not sent or sent[-1]:
            answer: list[str | None] = []
            if not self._producer.send(record, lambda error, _offset: answer.append(error)):
                self._producer.poll(self._timeout)
                raise KafkaUnavailable("the producer's queue is full")
            sent.append(answer)
        self._flush()
        if sent[-1] != [None]:
            raise KafkaUnavailable(f"lineage was not delivered: {sent[-1] or 'no answer'}")

    def _flush(self) -> None:
        if left := self._producer.flush(self._timeout):
            raise KafkaUnavailable(f"{left} reports are not delivered yet")

    def close(self) -> None:
        """Send what is on its way, within a second."""
        if self._board is not None:
            self._board.close()
        self._producer.flush(_FLUSH_SECONDS)


def _say_if_lost(learner_step: int, error: str | None, _offset: int) -> None:
    if error is not None:  # not for want of brokers: they are waited for
        _log.error("progress_lost", learner_step=learner_step, error=error)


def lineage(
    policy: str, version: int, drawn: Sequence[EpisodeDraws], now: datetime, size: int = _EPISODES_PER_PART
) -> list[TrainingLineage]:
    """What a version was made from, as events of at most `size` episodes each."""
    cuts = [tuple(drawn[at : at + size]) for at in range(0, len(drawn), size)] or [()]
    return [
        TrainingLineage(
            policy=policy, version=version, part=number, parts=len(cuts), reported_at=now, episodes=cut
        )
        for number, cut in enumerate(cuts, start=1)
    ]


def groups(tasks: tuple[str, ...], losses: GroupLosses) -> tuple[TrainingGroup, ...]:
    """Draws and mean losses by task and source, of those that were drawn."""
    found = []
    for index, task in enumerate(tasks):
        for source in range(losses.draws.shape[1]):
            draws = int(losses.draws[index, source])
            if draws:
                mean = float(losses.sums[index, source]) / draws
                found.append(TrainingGroup(task=task, online=source == ONLINE, draws=draws, loss=mean))
    return tuple(found)


def mixing(
    tasks: tuple[str, ...], shares: list[npt.NDArray[np.float64]], last_step: int
) -> tuple[TaskMixing, ...]:
    """The online share of every draw, by task.

    Args:
        tasks: the policy's.
        shares: one float64[tasks] for each update, in their order; NaN where a task had nothing to draw.
        last_step: learner step of the last one.
    """
    found = []
    for index, task in enumerate(tasks):
        drawn = [float(step[index]) for step in shares]
        begin = next((n for n, share in enumerate(drawn) if share == share), None)  # noqa: PLR0124 - not NaN
        if begin is not None:
            first = last_step - len(drawn) + 1 + begin
            found.append(TaskMixing(task=task, first_step=first, online_shares=tuple(drawn[begin:])))
    return tuple(found)
