"""Checkpoints: all that a learner needs to go on, in one object that is either there or not.

`checkpoints/<policy>/<step>-<version>-<sha256>.safetensors` is written before its version is announced. So a
version is never announced without a checkpoint to continue from, and a checkpoint whose version was not announced
says exactly what is to be announced.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import structlog

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from infra.settings import LearnerSettings
from learner.errors import CheckpointMissing, InvalidArtifact, VersionsLost
from learner.journal import settings_of
from learner.patience import Patience
from learner.policies.artifact import Arrays, pack_json, unpack_json
from learner.set_aside import SetAside
from schemas.events import PolicyVersion

_FORMAT = 2
_ASIDE = "set_aside."
"""Before the names of the columns of what is set aside, among the tensors."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One moment of a learner's life.

    announcement: the version that this moment was published as; its `offsets` are where to read on.
    core, tensors: what `TrainingCore.snapshot` returned. set_aside: episodes that are left out.
    """

    announcement: PolicyVersion
    core: dict[str, Any]
    tensors: Arrays
    set_aside: SetAside

    @property
    def positions(self) -> dict[int, int]:
        """Next offset to read by partition of training-episodes."""
        return {position.partition: position.offset for position in self.announcement.offsets}

    @property
    def settings(self) -> LearnerSettings:
        """Those that the announced version was trained with.

        Raises:
            InvalidArtifact: other software wrote them.
        """
        return settings_of(self.announcement.config)

    def pack(self) -> bytes:
        """As one safetensors file."""
        names, columns = self.set_aside.dump()
        document = {
            "format": _FORMAT,
            "announcement": self.announcement.model_dump(mode="json"),
            "core": self.core,
            "set_aside": names,
        }
        return pack_json(document, {**self.tensors, **{_ASIDE + name: rows for name, rows in columns.items()}})

    @classmethod
    def unpack(cls, data: bytes) -> Checkpoint:
        """Read such a file.

        Raises:
            InvalidArtifact: it is none, or of another format.
        """
        document, tensors = unpack_json(data)
        try:
            if document["format"] != _FORMAT:
                raise InvalidArtifact(
                    f"the checkpoint has format {document['format']}, this software reads {_FORMAT}: go on with "
                    "the software that wrote it, or let this one train the line again from its journal"
                )
            aside = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_ASIDE)}
            return cls(
                announcement=PolicyVersion.model_validate(document["announcement"]),
                core=document["core"],
                tensors=tensors,
                set_aside=SetAside.load(
                    document["set_aside"], {name.removeprefix(_ASIDE): rows for name, rows in aside.items()}
                ),
            )
        except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
            raise InvalidArtifact(f"not a checkpoint: {error!r}") from error


class Announced(NamedTuple):
    """Of a version that was announced: its hash, and the version that it was trained from."""

    sha256: str
    parent: int | None

    @classmethod
    def of(cls, version: PolicyVersion) -> Announced:
        """What is remembered of each."""
        return cls(version.sha256, version.parent_version)


class CheckpointStore:
    """The checkpoints of one policy line; those of the newest `keep` versions that have one are kept."""

    def __init__(self, store: ObjectStore, policy: str, patience: Patience, *, keep: int) -> None:
        self._store = store
        self._prefix = f"checkpoints/{policy}/"
        self._patience = patience
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> str:
        """Store it, in one PUT; its key."""
        version = checkpoint.announcement
        name = f"{version.learner_step:012d}-{version.version:08d}-{version.sha256}.safetensors"
        data = checkpoint.pack()
        self._patience.call("object store", lambda: self._store.put(self._prefix + name, data))
        return self._prefix + name

    def prune(self, published: Mapping[int, Announced], needed: Iterable[int] = ()) -> None:
        """Delete all but the newest of announced versions, and those from which `needed` versions can be reached.

        What belongs to no announced version does not count among the newest. It goes, unless its number is above
        theirs: a younger learner may be about to announce it.

        Args:
            published: the announced versions.
            needed: numbers of such versions.
        """
        keys = self._keys()
        hashes = {number: version.sha256 for number, version in published.items()}
        announced = [key for key in keys if hashes.get(_version(key)) == _sha256(key)]
        kept = {*announced[-self._keep :], *(key for key in keys if _version(key) > max(published, default=0))}
        by_version = {_version(key): key for key in announced}
        for version in needed:
            found = (by_version[at] for at in _back_from(version, published) if at in by_version)
            kept.update(itertools.islice(found, 1))
        for key in keys:
            if key not in kept:
                self._patience.call("object store", partial(self._store.delete, key))

    def require_announced(self, newest: int, sealed: int) -> None:
        """Refuse a line whose announcements are gone: its numbers would be given a second time.

        Journal and checkpoint come before the announcement, so that those of the version after the `newest`
        announced one (0: none) may be there already. `sealed`: the newest version that the journal has.

        Raises:
            VersionsLost: there is one of a version behind that.
        """
        last = max([sealed, *map(_version, self._keys())])
        if last > newest + 1:
            announced = f"versions up to {newest}" if newest else "no version"
            raise VersionsLost(
                f"{self._prefix} belongs to a line of {last} versions, and policy-versions announces {announced} "
                "of it: restore the topic, or name another line (SOP_LEARNER__POLICY, `sop backfill --policy`)"
            )

    def give_up(self, newest: int) -> None:
        """Delete those of versions above `newest`, which were sealed and are not to be announced any more."""
        for key in self._keys():
            if _version(key) > newest:
                self._patience.call("object store", partial(self._store.delete, key))

    def newest_first(self, up_to: int | None = None) -> Iterator[Checkpoint]:
        """Every checkpoint that can be read; of versions up to that one."""
        for key in reversed(self._keys()):
            if up_to is not None and _version(key) > up_to:
                continue
            try:
                data = self._patience.call("object store", partial(self._store.get, key))
                yield Checkpoint.unpack(data)
            except (InvalidArtifact, ObjectMissing) as error:
                _log.error("checkpoint_passed_over", key=key, error=str(error))

    def _keys(self) -> list[str]:
        # By version: after a rollback its steps are fewer than those of what was given up.
        keys = self._patience.call("object store", lambda: self._store.list(self._prefix))
        return sorted(keys, key=_version)


def _back_from(version: int, published: Mapping[int, Announced]) -> Iterator[int]:
    """A version and its ancestors."""
    at: int | None = version
    while at is not None and at in published:
        yield at
        parent = published[at].parent
        at = parent if parent is not None and parent < at else None


def _version(key: str) -> int:
    return int(key.rsplit("/", 1)[1].split("-")[1])


def _sha256(key: str) -> str:
    return key.rsplit("-", 1)[1].removesuffix(".safetensors")


def choose(
    checkpoints: Iterator[Checkpoint], published: Mapping[int, PolicyVersion], following: int | None = None
) -> Checkpoint | None:
    """The checkpoint to continue from: the newest whose version was announced, or is the next to announce.

    Others were written by a learner that had been taken over: their content never became a version.

    Args:
        checkpoints: newest first.
        published: announcements by version, of the version to go on from and its ancestors.
        following: number of the next version to announce; by default the one after the newest of these.

    Raises:
        CheckpointMissing: versions were published, and none of these belongs to one.
    """
    newest = max(published, default=0)
    for checkpoint in checkpoints:
        ours = checkpoint.announcement
        theirs = published.get(ours.version)
        ancestors = {None, *published}  # a learner that did not know of a rollback yet went on from another one
        is_next = ours.version == (following or newest + 1) and ours.parent_version in ancestors
        if is_next or (theirs is not None and theirs.sha256 == ours.sha256):
            return checkpoint
    if newest:
        raise CheckpointMissing(
            f"version {newest} was published, and no checkpoint of the line is left to continue from; "
            "restore the bucket, roll back to a version that has one, withdraw a rollback that is not carried out "
            "(`sop policies promote`), or train another policy line (SOP_LEARNER__POLICY)"
        )
    return None
