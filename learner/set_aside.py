"""Episodes that a line leaves out: 33 bytes each in columns, and a place in a hash table.

All lines share one topic, so a line may leave out far more episodes than it admits. What is kept of one is what a
restart must know: which revision it was, and whose, so that the robot's episodes can be counted.
"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from learner.episode_index import Names
from learner.episodes import EpisodeRecord
from learner.revisions import RevisionTable, uuid_bytes
from schemas.events import EpisodeSource

_GONE = -1
_SOURCES = list(EpisodeSource)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is remembered of one of them."""

    episode_id: str
    revision: int
    robot_id: str
    boot_epoch: int
    source: EpisodeSource


class SetAside:
    """Those episodes, in the order in which they were first put here; of each the newest revision."""

    def __init__(self) -> None:
        self._rows = RevisionTable()
        self._ids, self._odd = bytearray(), dict[int, str]()
        self._revisions, self._epochs, self._sources = array("i"), array("q"), array("B")
        self._robots = Names("I")
        self._gone = 0

    def __len__(self) -> int:
        return len(self._revisions) - self._gone

    def __contains__(self, episode_id: str) -> bool:
        row = self._rows.get(episode_id)
        return row >= 0 and self._revisions[row] != _GONE

    def __iter__(self) -> Iterator[LeftOut]:
        for row, revision in enumerate(self._revisions):
            if revision != _GONE:
                yield LeftOut(
                    episode_id=self._id(row),
                    revision=revision,
                    robot_id=self._robots[row],
                    boot_epoch=self._epochs[row],
                    source=_SOURCES[self._sources[row]],
                )

    def put(self, record: EpisodeRecord | LeftOut) -> None:
        """Leave an episode out in this revision."""
        row = self._rows.get(record.episode_id)
        if row >= 0:
            self._gone -= self._revisions[row] == _GONE
            self._revisions[row] = max(self._revisions[row], record.revision)
            return
        row = len(self._revisions)
        identity = uuid_bytes(record.episode_id)
        if identity is None:
            self._odd[row] = record.episode_id
        self._ids += identity or bytes(16)
        self._revisions.append(record.revision)
        self._epochs.append(record.boot_epoch)
        self._sources.append(_SOURCES.index(record.source))
        self._robots.append(record.robot_id)
        self._rows.put(record.episode_id, row)

    def discard(self, episode_id: str) -> None:
        """It is left out no longer; nothing happens if it was not."""
        if episode_id in self:
            self._revisions[self._rows.get(episode_id)] = _GONE
            self._gone += 1

    def copy(self) -> SetAside:
        """Another one, with the same episodes."""
        return SetAside.load(*self.dump())

    def dump(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Names as JSON and columns by name, without what is gone."""
        revisions = np.array(self._revisions, np.int32)
        rows = np.flatnonzero(revisions != _GONE)
        names, robots = self._robots.dump(rows)
        columns: dict[str, npt.NDArray[Any]] = {
            "ids": np.frombuffer(bytes(self._ids), np.uint8).reshape(-1, 16)[rows],
            "revisions": revisions[rows],
            "epochs": np.array(self._epochs, np.int64)[rows],
            "sources": np.array(self._sources, np.uint8)[rows],
            "robots": robots.astype(np.int32),
        }
        odd = [[place, self._odd[row]] for place, row in enumerate(rows.tolist()) if row in self._odd]
        return {"robots": names, "odd": odd}, columns

    @classmethod
    def load(cls, document: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]]) -> SetAside:
        """What was dumped.

        Raises:
            KeyError: something is missing.
        """
        found = cls()
        found._ids = bytearray(columns["ids"].tobytes())
        found._odd = {int(row): name for row, name in document["odd"]}
        for name, target in (
            ("revisions", found._revisions),
            ("epochs", found._epochs),
            ("sources", found._sources),
        ):
            target.frombytes(columns[name].tobytes())
        found._robots.load(document["robots"], columns["robots"])
        for row in range(len(found._revisions)):
            found._rows.put(found._id(row), row)
        return found

    def _id(self, row: int) -> str:
        odd = self._odd.get(row)
        return str(uuid.UUID(bytes=bytes(self._ids[16 * row : 16 * row + 16]))) if odd is None else odd
