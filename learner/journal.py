"""The journal: what a learner decided about its data, written down before any of it is trained on.

    journals/<policy>/open/<version>/<claim>/<number>.json   decisions about what <version> became, by one learner
    journals/<policy>/versions/<version>-<sha256>.json       all decisions that made a version of its parent

A version follows from the one before, its settings and these decisions, bit for bit (`learner.rerun`). An older
learner that hangs may still write under its own claim; nobody reads that once a younger one has written under its.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from infra.settings import LearnerSettings
from learner.episodes import EpisodeRecord
from learner.errors import InvalidArtifact, JournalMissing
from learner.patience import Patience
from schemas.events import Feature, PolicyVersion

_log = structlog.get_logger(__name__)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decision(_Document):
    """About one episode: which revision, and where its announcement lies in training-episodes."""

    record: EpisodeRecord
    partition: int
    offset: int
    seen_at: AwareDatetime


class Beginning(_Document):
    """What a new line is for: layout of its vectors, and steps per second."""

    features: tuple[Feature, ...]
    fps: float


class Entry(_Document):
    """Decisions that take effect after `learner_step` updates.

    admitted: in this order. set_aside: excluded by a label; or payload missing, altered, or of no use.
    forgotten: ids of episodes that had been admitted, and are excluded or can no longer be read.
    beginning: the line starts with what is admitted here.
    """

    learner_step: int
    admitted: tuple[Decision, ...] = ()
    set_aside: tuple[Decision, ...] = ()
    forgotten: tuple[str, ...] = ()
    beginning: Beginning | None = None


class Segment(_Document):
    """How one version came about.

    parent: the version that it was trained from. config: the learner's settings as JSON. machine: where it was
    trained, see `learner.machine`. learner_step: updates taken when it was published. ranks: how many there were.
    """

    policy: str
    version: int
    parent: int | None
    sha256: str
    learner_step: int
    config: str
    machine: str
    entries: tuple[Entry, ...]
    ranks: int = 1


def settings_of(config: str) -> LearnerSettings:
    """A learner's settings as they were written down.

    Raises:
        InvalidArtifact: other software wrote them, which has settings that are unknown here.
    """
    try:
        return LearnerSettings.model_validate_json(config)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidArtifact(f"settings of other software ({found})") from error


_ENTRIES = TypeAdapter(tuple[Entry, ...])


class Journal:
    """The journal of one policy line, as one learner writes it.

    Raises (all methods):
        Stopped: a stop was asked for.
    """

    def __init__(self, store: ObjectStore, policy: str, patience: Patience) -> None:
        self._store = store
        self._prefix = f"journals/{policy}/"
        self._patience = patience
        self._folder = ""
        self._count = 0
        self._entries: list[Entry] = []

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Decisions since the newest version."""
        return tuple(self._entries)

    def tail(self, version: int) -> tuple[Entry, ...]:
        """What the last learner decided after it published `version` (0: before the first).

        Raises:
            InvalidArtifact: what lies there is no journal.
        """
        keys = self._list(self._open(version))
        youngest = max((key.rsplit("/", 1)[0] for key in keys), default="")
        found = [entry for key in keys if key.rsplit("/", 1)[0] == youngest for entry in self._read_entries(key)]
        return tuple(found)

    def readable_tail(self, version: int) -> tuple[Entry, ...]:
        """The same; nothing, and a word in the log, where what lies there is no journal."""
        try:
            return self.tail(version)
        except InvalidArtifact as error:
            _log.error("journal_passed_over", version=version, reason=str(error))
            return ()

    def take_over(self, version: int, claim: str, entries: tuple[Entry, ...]) -> None:
        """From now on this is the journal after `version`; `entries` were taken up from the last learner's."""
        self._folder = f"{self._open(version)}{claim}/"
        self._count, self._entries = 0, []
        self._write(entries)

    def append(self, entry: Entry) -> None:
        """Write decisions down; when this returns they survive the machine."""
        self._write((entry,))

    def drop(self, version: int) -> None:
        """Nothing was decided after `version`: whoever goes back to it does not do again what came of it."""
        for key in self._list(self._open(version)):
            self._patience.call("object store", partial(self._store.delete, key))

    def newest(self) -> int:
        """Of the versions that were sealed, announced or not; 0: none."""
        keys = self._list(f"{self._prefix}versions/")
        return max((int(key.rsplit("/", 1)[1].partition("-")[0]) for key in keys), default=0)

    def seal(self, segment: Segment) -> None:
        """Write down how a version came about, before it is announced."""
        key, data = self._key(segment.version, segment.sha256), segment.model_dump_json().encode()
        self._patience.call("object store", lambda: self._store.put(key, data))

    def turn(self, version: int) -> None:
        """`version` is announced: decisions from now on come after it. Those before are in its segment."""
        claim = self._folder.rstrip("/").rsplit("/", 1)[1]
        self.take_over(version, claim, ())
        before = self._open(version)
        for key in self._list(f"{self._prefix}open/"):
            if key < before:
                self._patience.call("object store", partial(self._store.delete, key))

    def segment(self, version: PolicyVersion) -> Segment:
        """How an announced version came about.

        Raises:
            JournalMissing: nobody wrote it down, or it was removed.
            InvalidArtifact: what lies there is no journal.
        """
        key = self._key(version.version, version.sha256)
        try:
            return Segment.model_validate_json(self._get(key))
        except ObjectMissing as error:
            raise JournalMissing(
                f"the journal has no {key}: version {version.version} was published without, or it was removed"
            ) from error
        except ValidationError as error:
            raise InvalidArtifact(f"{key} is no journal: {error.errors()[0]['msg']}") from error

    def _read_entries(self, key: str) -> tuple[Entry, ...]:
        try:
            return _ENTRIES.validate_json(self._get(key))
        except ValidationError as error:
            raise InvalidArtifact(f"{key} is no journal: {error.errors()[0]['msg']}") from error

    def _write(self, entries: tuple[Entry, ...]) -> None:
        key, data = f"{self._folder}{self._count:08d}.json", _ENTRIES.dump_json(entries)
        self._patience.call("object store", lambda: self._store.put(key, data))
        self._count += 1
        self._entries += entries

    def _list(self, prefix: str) -> list[str]:
        return self._patience.call("object store", lambda: self._store.list(prefix))

    def _get(self, key: str) -> bytes:
        return self._patience.call("object store", lambda: self._store.get(key))

    def _open(self, version: int) -> str:
        return f"{self._prefix}open/{version:08d}/"

    def _key(self, version: int, sha256: str) -> str:
        return f"{self._prefix}versions/{version:08d}-{sha256}.json"


class Trail:
    """The way to a version: its segments, the earliest first, each read again whenever it is come to.

    Of each only the announcement stays in memory: a segment names every episode that its version admitted.

    Attributes:
        machines: the kinds of machine that trained them, each once.
    """

    def __init__(self, journal: Journal, versions: Sequence[PolicyVersion], machines: tuple[str, ...]) -> None:
        self._journal, self._versions = journal, versions
        self.machines = machines

    def __len__(self) -> int:
        return len(self._versions)

    def __iter__(self) -> Iterator[Segment]:
        """Raises JournalMissing, InvalidArtifact: one was removed or changed since it was looked at."""
        for version in self._versions:
            yield self._journal.segment(version)


def path_to(version: int, published: Mapping[int, PolicyVersion], journal: Journal, *, after: int = 0) -> Trail:
    """Segments from the one after version `after` up to `version`, along the parents; 0 is the line's beginning.

    Each is read once, so that what is missing is known before any is trained.

    Raises:
        JournalMissing: one of them is missing, or `after` is no ancestor.
        InvalidArtifact: one of them is no journal.
    """
    versions: list[PolicyVersion] = []
    machines: dict[str, None] = {}
    at = version
    while at != after:
        if at not in published:
            raise JournalMissing(f"version {at} was never published; published are {_ranges(published)}")
        versions.append(published[at])
        at, machine = _parent_and_machine(journal, published[at])
        machines.setdefault(machine)
        if at < after:
            raise JournalMissing(f"version {version} does not come from version {after}")
    return Trail(journal, versions[::-1], tuple(machines)[::-1])


def _parent_and_machine(journal: Journal, version: PolicyVersion) -> tuple[int, str]:
    segment = journal.segment(version)  # let go of when this returns
    return segment.parent or 0, segment.machine


def _ranges(published: Mapping[int, PolicyVersion]) -> str:
    return f"{min(published)} to {max(published)}" if published else "none"
