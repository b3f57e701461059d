"""The events, in the past tense and frozen. Field meanings are in `schemas/avro/`, one file for each record.

Times are aware datetimes with microseconds, in UTC once read. Vectors are little-endian float32 bytes.
In JSON, bytes are base64 (URL-safe alphabet).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime

from schemas.base import Event as Event
from schemas.base import Frozen, Int32, Int64
from schemas.base import SignedEvent as SignedEvent
from schemas.frames import FrameSegment as FrameSegment
from schemas.frames import FramesRecorded as FramesRecorded
from schemas.frames import StepRange as StepRange
from schemas.labels import EpisodeLabelled as EpisodeLabelled
from schemas.labels import Label as Label
from schemas.labels import Verdict as Verdict
from schemas.training import Admission as Admission
from schemas.training import EpisodeDraws as EpisodeDraws
from schemas.training import Position as Position
from schemas.training import TaskMixing as TaskMixing
from schemas.training import TrainingGroup as TrainingGroup
from schemas.training import TrainingLineage as TrainingLineage
from schemas.training import TrainingMetric as TrainingMetric
from schemas.training import TrainingProgress as TrainingProgress


class Actor(StrEnum):
    """Who chose an executed action."""

    POLICY = "POLICY"
    HUMAN = "HUMAN"


class InterventionPhase(StrEnum):
    """Which edge of an intervention."""

    BEGIN = "BEGIN"
    END = "END"


class RolloutMode(StrEnum):
    """Whether robots run the newest version of a line, or one that is held."""

    FOLLOW_LATEST = "FOLLOW_LATEST"
    HOLD = "HOLD"


class EpisodeSource(StrEnum):
    """Why an episode was recorded; EVALUATION is never trained on."""

    ONLINE = "ONLINE"
    DEMONSTRATION = "DEMONSTRATION"
    EVALUATION = "EVALUATION"


class EpisodeEnd(StrEnum):
    """How an episode ended."""

    TERMINATED = "TERMINATED"
    TRUNCATED = "TRUNCATED"
    ABORTED = "ABORTED"


class ClosedBy(StrEnum):
    """Why the materializer sealed an episode."""

    COMPLETE = "COMPLETE"
    SUCCESSOR = "SUCCESSOR"
    TIMEOUT = "TIMEOUT"


class RobotEvent(Event):
    """What every event inside an episode carries: `(robot_id, boot_epoch, sequence)` identifies it."""

    episode_id: str
    robot_id: str
    boot_epoch: Int64
    sequence: Int64
    captured_at: AwareDatetime


class Step(RobotEvent):
    """One control step. `state`, `action`, `proposed_action`: little-endian float32 bytes."""

    record: ClassVar[str] = "step"
    index: Int32
    actor: Actor
    policy_version: Int64
    state: bytes
    action: bytes
    proposed_action: bytes | None = None
    reward: float


class Intervention(RobotEvent):
    """A human took over (BEGIN) or gave control back (END); steps are indices, both ends included."""

    record: ClassVar[str] = "intervention"
    intervention_id: str
    phase: InterventionPhase
    operator: str
    reason: str
    first_step: Int32
    last_step: Int32 | None = None


class Feature(Frozen):
    """Layout of one vector: `shape` in elements, `names` one for each element of the flattened vector or none.

    Or of one camera: uint8 (height, width, 3), or uint16 (height, width), which is kept without loss.
    """

    name: str
    dtype: str = "float32"
    shape: tuple[Int32, ...]
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for dimension in self.shape:
            size *= dimension
        return size


class EpisodeStarted(Frozen):
    """An episode began; `fps` in steps per second."""

    task: str
    instruction: str
    embodiment: str
    features: tuple[Feature, ...]
    fps: float
    source: EpisodeSource
    policy: str = ""


class EpisodeEnded(Frozen):
    """An episode ended; `first_sequence` is its EpisodeStarted's, the last one is this event's own."""

    first_sequence: Int64
    end: EpisodeEnd
    success: bool | None = None
    final_state: bytes | None = None
    step_count: Int32
    intervention_count: Int32
    simulated_at: float | None = None
    frame_count: Int32 = 0
    frames_dropped: Int32 = 0


class EpisodeBoundary(RobotEvent):
    """The first or the last event of an episode, or what its cameras saw."""

    record: ClassVar[str] = "episode_boundary"
    body: EpisodeStarted | EpisodeEnded | FramesRecorded


class Heartbeat(Event):
    """How a robot is doing; ages in seconds. The clock's offset is the broker's minus the robot's."""

    record: ClassVar[str] = "heartbeat"
    robot_id: str
    boot_epoch: Int64
    reported_at: AwareDatetime
    spool_depth: Int64
    spool_age_seconds: float
    policy: str
    policy_version: Int64
    episodes_ended: Int64
    errors: tuple[str, ...] = ()
    simulated_seconds: float | None = None
    waiting: bool = False
    spool_bytes: Int64 | None = None
    clock_offset_seconds: float | None = None
    clock_offset_error_seconds: float | None = None
    frames_dropped: Int64 | None = None
    policy_wanted: Int64 | None = None


class PolicyActivated(Event):
    """A robot swapped to a policy version."""

    record: ClassVar[str] = "policy_activated"
    robot_id: str
    boot_epoch: Int64
    policy: str
    version: Int64
    sha256: str
    activated_at: AwareDatetime


class Range(Frozen):
    """Integers from `first` to `last`, both included."""

    first: Int64
    last: Int64


class OffsetRange(Frozen):
    """Where the events of an episode lie in one Kafka partition, both ends included."""

    topic: str
    partition: Int32
    first: Int64
    last: Int64


class InterventionSpan(Frozen):
    """One intervention with both edges joined; `last_step` and `ended_at` are None when its end is unknown."""

    intervention_id: str
    operator: str
    reason: str
    first_step: Int32
    last_step: Int32 | None = None
    began_at: AwareDatetime
    ended_at: AwareDatetime | None = None


class EpisodeMaterialized(Event):
    """An episode's payload is stored; readers keep the highest revision. Sizes in bytes, counts in steps.

    `frame_objects` hold the `frame_count` frames of its cameras that are not in the payload itself.
    """

    record: ClassVar[str] = "episode_materialized"
    episode_id: str
    revision: Int32
    robot_id: str
    boot_epoch: Int64
    task: str
    instruction: str
    embodiment: str
    source: EpisodeSource
    policy: str
    features: tuple[Feature, ...]
    fps: float
    end: EpisodeEnd
    success: bool | None = None
    closed_by: ClosedBy
    payload_uri: str
    payload_sha256: str
    payload_bytes: Int64
    step_count: Int32
    human_step_count: Int32
    reward_sum: float
    sequences: tuple[Range, ...]
    rejected: tuple[Range, ...] = ()
    missing_count: Int64
    source_offsets: tuple[OffsetRange, ...]
    policy_versions: tuple[Int64, ...] = ()
    human_ranges: tuple[Range, ...] = ()
    interventions: tuple[InterventionSpan, ...] = ()
    started_at: AwareDatetime
    ended_at: AwareDatetime
    appended_at: AwareDatetime
    materialized_at: AwareDatetime
    simulated_ended_at: float | None = None
    recorded_success: bool | None = None
    excluded: bool = False
    labels: tuple[Label, ...] = ()
    frame_count: Int64 = 0
    frames_dropped: Int64 = 0
    frame_objects: Int32 = 0


class PolicyVersion(SignedEvent):
    """The learner published a policy version; `config` is JSON, `size_bytes` the artifact's."""

    record: ClassVar[str] = "policy_version"
    policy: str
    version: Int64
    artifact_uri: str
    sha256: str
    size_bytes: Int64
    parent_version: Int64 | None = None
    algorithm: str
    learner_step: Int64
    episodes_admitted: Int64
    offsets: tuple[Position, ...]
    config: str
    code_version: str
    published_at: AwareDatetime
    simulated_seconds: float | None = None


class Canary(Frozen):
    """A version that a part of the fleet tries: a `fraction` of it, or the named `robots`."""

    version: Int64
    fraction: float
    robots: tuple[str, ...] = ()
    began_at: AwareDatetime | None = None


class Pin(Frozen):
    """One robot runs one version, whatever the others do."""

    robot_id: str
    version: Int64


class Restored(Frozen):
    """The learner goes on from `version`; it obeys each `generation` once."""

    generation: Int64
    version: Int64


class PolicyRollout(SignedEvent):
    """Which robots run which versions of a line: a complete state, of which the newest generation counts.

    What it means, and how one follows from another: `infra.policies.rollout`.
    """

    record: ClassVar[str] = "policy_rollout"
    policy: str
    generation: Int64
    mode: RolloutMode
    current: Int64 | None = None
    previous: Int64 | None = None
    canary: Canary | None = None
    queued: tuple[Canary, ...] = ()
    pins: tuple[Pin, ...] = ()
    restored: Restored | None = None
    author: str
    reason: str
    written_at: AwareDatetime


EVENTS: dict[str, type[Event]] = {
    event.record: event
    for event in (
        Step,
        Intervention,
        EpisodeBoundary,
        Heartbeat,
        PolicyActivated,
        EpisodeLabelled,
        EpisodeMaterialized,
        PolicyVersion,
        PolicyRollout,
        TrainingProgress,
        TrainingLineage,
    )
}
"""Every event by the name of its record."""
