"""The events, in the past tense and frozen. Field meanings are in `schemas/avro/`, one file for each record.

Times are aware datetimes with microseconds, in UTC once read. Vectors are little-endian float32 bytes.
In JSON, bytes are base64 (URL-safe alphabet).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# What Avro's `int` and `long` hold. fastavro writes larger ones without a word, and columnar readers fail on them.
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Event(_Frozen):
    """Something that happened and travels on its own; `record` names its schema."""

    record: ClassVar[str]


class SignedEvent(Event):
    """What its reader must not believe without a signature (`schemas.signing`); both None when unsigned."""

    key_id: str | None = None
    signature: bytes | None = None


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


class Feature(_Frozen):
    """Layout of one vector: `shape` in elements, `names` one for each element of the flattened vector or none."""

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


class EpisodeStarted(_Frozen):
    """An episode began; `fps` in steps per second."""

    task: str
    instruction: str
    embodiment: str
    features: tuple[Feature, ...]
    fps: float
    source: EpisodeSource
    policy: str = ""


class EpisodeEnded(_Frozen):
    """An episode ended; `first_sequence` is its EpisodeStarted's, the last one is this event's own."""

    first_sequence: Int64
    end: EpisodeEnd
    success: bool | None = None
    final_state: bytes | None = None
    step_count: Int32
    intervention_count: Int32
    simulated_at: float | None = None


class EpisodeBoundary(RobotEvent):
    """The first or the last event of an episode."""

    record: ClassVar[str] = "episode_boundary"
    body: EpisodeStarted | EpisodeEnded


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


class PolicyActivated(Event):
    """A robot swapped to a policy version."""

    record: ClassVar[str] = "policy_activated"
    robot_id: str
    boot_epoch: Int64
    policy: str
    version: Int64
    sha256: str
    activated_at: AwareDatetime


class Range(_Frozen):
    """Integers from `first` to `last`, both included."""

    first: Int64
    last: Int64


class OffsetRange(_Frozen):
    """Where the events of an episode lie in one Kafka partition, both ends included."""

    topic: str
    partition: Int32
    first: Int64
    last: Int64


class InterventionSpan(_Frozen):
    """One intervention with both edges joined; `last_step` and `ended_at` are None when its end is unknown."""

    intervention_id: str
    operator: str
    reason: str
    first_step: Int32
    last_step: Int32 | None = None
    began_at: AwareDatetime
    ended_at: AwareDatetime | None = None


class EpisodeMaterialized(Event):
    """An episode's payload is stored; readers keep the highest revision. Sizes in bytes, counts in steps."""

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


class Position(_Frozen):
    """How far a partition of training-episodes had been read: `offset` is the next one."""

    partition: Int32
    offset: Int64


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


class Canary(_Frozen):
    """A version that a part of the fleet tries: a `fraction` of it, or the named `robots`."""

    version: Int64
    fraction: float
    robots: tuple[str, ...] = ()
    began_at: AwareDatetime | None = None


class Pin(_Frozen):
    """One robot runs one version, whatever the others do."""

    robot_id: str
    version: Int64


class Restored(_Frozen):
    """The learner goes on from `version`; it obeys each `generation` once."""

    generation: Int64
    version: Int64


class PolicyRollout(SignedEvent):
    """Which robots run which versions of a line, complete (see `infra.policies.rollout`); the newest counts."""

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


class TrainingGroup(_Frozen):
    """Draws of one task from one source, and the mean loss of those samples."""

    task: str
    online: bool
    draws: Int64
    loss: float


class TaskMixing(_Frozen):
    """The online share that one task was drawn with at each learner step from `first_step` on."""

    task: str
    first_step: Int64
    online_shares: tuple[float, ...]


class Admission(_Frozen):
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


class EpisodeDraws(_Frozen):
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


_ROBOTS: tuple[type[Event], ...] = (Step, Intervention, EpisodeBoundary, Heartbeat, PolicyActivated)
_EPISODES: tuple[type[Event], ...] = (EpisodeMaterialized, TrainingProgress, TrainingLineage)
_POLICIES: tuple[type[Event], ...] = (PolicyVersion, PolicyRollout)

EVENTS = {event.record: event for event in (*_ROBOTS, *_EPISODES, *_POLICIES)}
"""Every event by the name of its record."""
