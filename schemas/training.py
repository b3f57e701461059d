"""What the learner tells of its work: progress, and what each policy version was made from."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from schemas.base import Event, Frozen, Int32, Int64


class Position(Frozen):
    """How far a partition of training-episodes had been read: `offset` is the next one."""

    partition: Int32
    offset: Int64


class TrainingGroup(Frozen):
    """Draws of one task from one source, and the mean loss of those samples."""

    task: str
    online: bool
    draws: Int64
    loss: float


class TaskMixing(Frozen):
    """The online share that one task was drawn with at each learner step from `first_step` on."""

    task: str
    first_step: Int64
    online_shares: tuple[float, ...]


class TrainingMetric(Frozen):
    """What the algorithm tells of its updates: the mean over those since the last report."""

    name: str
    value: float


class Admission(Frozen):
    """The learner read an episode's announcement at `seen_at`."""

    episode_id: str
    revision: Int32
    seen_at: AwareDatetime


class TrainingProgress(Event):
    """What the learner did since its last report; losses are means over that time."""

    record: ClassVar[str] = "training_progress"
    policy: str
    learner_step: Int64
    reported_at: AwareDatetime
    loss: float
    groups: tuple[TrainingGroup, ...]
    online_share: float
    episodes_admitted: Int64
    steps_admitted: Int64
    admitted: tuple[Admission, ...] = ()
    offsets: tuple[Position, ...]
    simulated_seconds: float | None = None
    mixing: tuple[TaskMixing, ...] = ()
    updates_skipped: Int64 = 0
    metrics: tuple[TrainingMetric, ...] = ()


class EpisodeDraws(Frozen):
    """Samples drawn from one revision of an episode."""

    episode_id: str
    revision: Int32
    draws: Int64


class TrainingLineage(Event):
    """What made a policy version: draws since the version before. `part` of `parts`, from 1, as it may be long."""

    record: ClassVar[str] = "training_lineage"
    policy: str
    version: Int64
    part: Int32
    parts: Int32
    reported_at: AwareDatetime
    episodes: tuple[EpisodeDraws, ...]
