"""`sop replay`: a published version is trained again, from journal and payloads, and compared.

It writes nothing: neither Kafka nor the bucket are changed, and a learner that is at work is not disturbed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from learner.checkpoint import Checkpoint, CheckpointStore
from learner.core import TrainingCore
from learner.errors import InvalidArtifact, JournalMissing, PayloadGone
from learner.journal import Journal, path_to
from learner.machine import fingerprint, same_kind
from learner.patience import Patience
from learner.policies.artifact import Arrays, unpack
from learner.ranks import make_fetcher, make_room
from learner.rerun import rerun
from learner.restoring import past_of
from learner.resume import restore, settle
from learner.stream import EventStream
from learner.team import ALONE
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS

TOLERANCE = 1e-2
"""On other hardware, relative to a tensor's largest weight.

Rounding differs in the last bit, and training amplifies it: weights that differ by 6e-8 at first differ by 7e-6
after 10 updates and by 8e-3 after 100 (MLP 3×256, learning rate 1e-3), and later are as far apart as two seeds. So
between machines of different kinds only a version that begins at a checkpoint can be compared.
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Outcome of a replay.

    published, trained: sha256. there: the kinds of machine on the way, each once; here: this one. difference:
    largest difference of any weight, as a share of the largest weight of its tensor; 0 when the hashes agree, None
    when nothing can be compared. updates: gradient steps that were taken.
    """

    version: int
    published: str
    trained: str
    there: tuple[str, ...]
    here: str
    difference: float | None
    updates: int

    @property
    def equal(self) -> bool:
        """Bit for bit."""
        return self.published == self.trained

    @property
    def others(self) -> tuple[str, ...]:
        """Kinds of machine on the way that are not this one's."""
        return tuple(kind for kind in self.there if not same_kind(kind, self.here))

    @property
    def other_hardware(self) -> bool:
        """Whether equal bits cannot be expected: one step on another machine makes all that follow others."""
        return bool(self.others)

    @property
    def good(self) -> bool:
        """Equal; on other hardware within `TOLERANCE`."""
        close = self.difference is not None and self.difference <= TOLERANCE
        return self.equal or (self.other_hardware and close)


def replay(
    settings: Settings,
    policy: str,
    version: int,
    *,
    from_checkpoint: bool = False,
    stop: threading.Event | None = None,
    told: Callable[[int, int], None] = lambda _version, _steps: None,
) -> Replayed:
    """Train a version of a line again.

    Args:
        settings: where the servers are; the learner's settings are those of the time.
        policy: the line.
        version: of it.
        from_checkpoint: begin at the newest checkpoint of an ancestor that is kept, not at the line's beginning.
        stop: ends it.
        told: called with each version and its learner step, once it was trained.

    Raises:
        JournalMissing: nobody wrote down how the version came about.
        PayloadGone: an episode can no longer be read as it was announced.
        InvalidArtifact: a journal is none.
        Stopped: a stop was asked for.
    """
    patience, store = Patience(stop or threading.Event()), ObjectStore(settings.s3)
    published, lines = _published(settings, policy, patience)
    if version not in published:
        raise JournalMissing(
            f"{policy} has no version {version}; it has {_those(published)}{_others(published, lines)}"
        )
    journal = Journal(store, policy, patience)
    payloads = make_fetcher(settings, store, patience, ALONE)
    room = make_room(settings, patience)
    try:
        core: TrainingCore | None = None
        checkpoints = CheckpointStore(store, policy, patience, keep=1)
        checkpoint = _nearest(checkpoints, published, version) if from_checkpoint else None
        path = path_to(version, published, journal, after=checkpoint.announcement.version if checkpoint else 0)
        if checkpoint is not None:
            restored = restore(checkpoint.settings, checkpoint, payloads, room)
            settle(restored, next(iter(path)))
            if restored.lost:
                raise PayloadGone(f"of version {restored.at.version}: {restored.lost[0].episode_id}")
            core = restored.core
        began = core.learner_step if core is not None else 0
        for segment in path:
            core = rerun(core, segment, payloads, room, patience.check)
            told(segment.version, segment.learner_step)
        if core is None:
            raise JournalMissing(f"there is nothing to train for version {version}")
        data = core.artifact()
    finally:
        payloads.close()
    digest = sha256_hex(data)
    difference: float | None = 0.0
    if digest != published[version].sha256:
        difference = _difference(store, published[version], data, patience)
    return Replayed(
        version=version,
        published=published[version].sha256,
        trained=digest,
        there=path.machines,
        here=fingerprint(),
        difference=difference,
        updates=core.learner_step - began,
    )


def difference_of(one: Arrays, other: Arrays) -> float | None:
    """Largest difference of any weight, as a share of its tensor's largest; None where names or shapes differ."""
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return None
    shares = []
    for name, weights in one.items():
        if weights.size:
            scale = max(float(np.abs(weights).max()), 1e-12)
            shares.append(float(np.abs(weights.astype(np.float64) - other[name]).max()) / scale)
    return max(shares, default=0.0)


def _nearest(store: CheckpointStore, published: dict[int, PolicyVersion], version: int) -> Checkpoint | None:
    """The newest checkpoint of an ancestor, if there is one."""
    past = past_of(published, version)
    for checkpoint in store.newest_first():
        at = checkpoint.announcement
        if at.version != version and at.version in past and at.sha256 == past[at.version].sha256:
            return checkpoint
    _log.warning("replaying_from_the_beginning", reason="no checkpoint of an ancestor is kept")
    return None


def _difference(store: ObjectStore, announced: PolicyVersion, data: bytes, patience: Patience) -> float | None:
    """From what was published; None where that is gone, altered or elsewhere: the hashes are told all the same."""
    try:
        key = store.key(announced.artifact_uri)
        theirs = unpack(patience.call("object store", lambda: store.get(key)))[1]
    except (ObjectMissing, InvalidArtifact, ValueError) as error:
        _log.warning("published_artifact_not_read", uri=announced.artifact_uri, reason=str(error))
        return None
    return difference_of(theirs, unpack(data)[1])


def _published(settings: Settings, policy: str, patience: Patience) -> tuple[dict[int, PolicyVersion], list[str]]:
    """The line's versions, by number, and the names of all lines."""
    stream = EventStream(settings.kafka, Registry(settings.registry), POLICY_VERSIONS, PolicyVersion, patience)
    try:
        versions = [item.event for item in stream.read_to_end()]
    finally:
        stream.close()
    own = {version.version: version for version in versions if version.policy == policy}
    return own, sorted({version.policy for version in versions})


def _others(published: dict[int, PolicyVersion], lines: list[str]) -> str:
    return "" if published else f"; lines that have some: {', '.join(lines) or 'none'}"


def _those(published: dict[int, PolicyVersion]) -> str:
    return f"versions {min(published)} to {max(published)}" if published else "none"
