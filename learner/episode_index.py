"""What is remembered of every episode that was admitted: about a hundred bytes each, in columns.

A row for each admission, in its order. It is held while its frames may be drawn, left when the buffer had no more
room for it, and gone when a newer revision took its place or its payload was lost. If nothing was selected of one
that is held, that is noted: whoever fills a buffer again need not read it.
"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.payload_names import address, pattern_of
from learner.episodes import EpisodeRecord
from learner.revisions import RevisionTable, uuid_bytes
from schemas.events import EpisodeEnd, EpisodeSource

HELD, LEFT, GONE = 0, 1, 2

_SOURCES, _ENDS = list(EpisodeSource), [None, *EpisodeEnd]
_SUCCESSES = [None, False, True]


class EpisodeIndex(Mapping[str, EpisodeRecord]):
    """Records by episode id, in the order of admission; those that are gone are not among them."""

    def __init__(self) -> None:
        self._rows = RevisionTable()
        self._ids, self._digests = bytearray(), bytearray()
        self._odd: dict[int, str] = {}
        self._revisions, self.steps, self._epochs = array("i"), array("i"), array("q")
        self._tasks, self._robots, self._uris = Names("H"), Names("I"), Names("I")
        self._traits, self._states, self._unselected = array("B"), array("B"), array("B")
        self._gone = 0

    def __len__(self) -> int:
        return len(self._states) - self._gone

    def __iter__(self) -> Iterator[str]:
        return (self._id(row) for row in range(len(self._states)) if self._states[row] != GONE)

    def __getitem__(self, episode_id: str) -> EpisodeRecord:
        row = self.row(episode_id)
        if row is None:
            raise KeyError(episode_id)
        return self.record(row)

    @property
    def rows(self) -> int:
        """Number of rows, gone ones too."""
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """Memory of the columns."""
        names = sum(n.codes.itemsize * len(n.codes) for n in (self._tasks, self._robots, self._uris))
        numbers = (self._revisions, self.steps, self._epochs, self._traits, self._states, self._unselected)
        arrays = sum(len(a) * a.itemsize for a in numbers)
        return names + arrays + self._rows.nbytes + len(self._ids) + len(self._digests)

    @property
    def step_count(self) -> int:
        """Steps of all episodes that are not gone."""
        steps, states = np.frombuffer(self.steps, np.int32), np.frombuffer(self._states, np.uint8)
        return int(steps[states != GONE].sum()) if len(steps) else 0

    def row(self, episode_id: str) -> int | None:
        """Where an episode that is not gone stands."""
        row = self._rows.get(episode_id)
        return row if row >= 0 and self._states[row] != GONE else None

    def state(self, row: int) -> int:
        """HELD, LEFT or GONE."""
        return self._states[row]

    def mark(self, row: int, state: int) -> None:
        """Set it."""
        self._gone += (state == GONE) - (self._states[row] == GONE)
        self._states[row] = state
        self._unselected[row] &= state == HELD

    def put(self, record: EpisodeRecord) -> int:
        """A new last row, held; the row that the episode had is gone."""
        before = self.row(record.episode_id)
        if before is not None:
            self.mark(before, GONE)
        row = len(self._states)
        identity, digest = uuid_bytes(record.episode_id), record.payload_sha256
        if identity is None:
            self._odd[row] = record.episode_id
        self._ids += identity or bytes(16)
        self._digests += bytes.fromhex(digest)
        self._revisions.append(record.revision)
        self.steps.append(record.step_count)
        self._epochs.append(record.boot_epoch)
        self._tasks.append(record.task)
        self._robots.append(record.robot_id)
        self._uris.append(pattern_of(record.payload_uri, record.episode_id, record.revision, digest))
        source, end = _SOURCES.index(record.source), _ENDS.index(record.end)
        self._traits.append(source * 16 + end * 4 + _SUCCESSES.index(record.success))
        self._states.append(HELD)
        self._unselected.append(False)
        self._rows.put(record.episode_id, row)
        return row

    def record(self, row: int) -> EpisodeRecord:
        """What is remembered of a row."""
        traits = self._traits[row]
        episode_id, revision = self._id(row), self._revisions[row]
        digest = self._digests[32 * row : 32 * row + 32].hex()
        return EpisodeRecord(
            episode_id=episode_id,
            revision=revision,
            robot_id=self._robots[row],
            boot_epoch=self._epochs[row],
            task=self._tasks[row],
            source=_SOURCES[traits >> 4],
            success=_SUCCESSES[traits & 3],
            end=_ENDS[traits >> 2 & 3],
            step_count=self.steps[row],
            payload_uri=address(self._uris[row], episode_id, revision, digest),
            payload_sha256=digest,
        )

    def identity(self, row: int) -> tuple[str, int]:
        """Episode id and revision of a row, gone ones too."""
        return self._id(row), self._revisions[row]

    def online(self, row: int) -> bool:
        """Whether it is online data."""
        return _SOURCES[self._traits[row] >> 4] is EpisodeSource.ONLINE

    def held(self) -> Iterator[EpisodeRecord]:
        """Those whose frames may be drawn, in their order; the index may change meanwhile."""
        for row in range(len(self._states)):
            if self._states[row] == HELD:
                yield self.record(row)

    def to_refill(self) -> Iterator[EpisodeRecord]:
        """Those of them that are not known to have had nothing selected; the index may change meanwhile."""
        for row in range(len(self._states)):
            if self._states[row] == HELD and not self._unselected[row]:
                yield self.record(row)

    def unselected(self, row: int) -> bool:
        """Whether a row is held, and known to have had nothing selected."""
        return bool(self._unselected[row])

    def note_unselected(self, row: int, *, unselected: bool) -> None:
        """Whether nothing was selected of an episode that is held."""
        self._unselected[row] = unselected

    def forget_unselected(self) -> None:
        """Other settings may select otherwise: of no episode is that known any more."""
        self._unselected = array("B", bytes(len(self._states)))

    def dump(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Names as JSON and columns by name, without what is gone: the same episodes give the same."""
        rows = np.flatnonzero(np.frombuffer(self._states, np.uint8) != GONE) if self._states else np.empty(0, int)
        columns: dict[str, npt.NDArray[Any]] = {
            "ids": np.frombuffer(bytes(self._ids), np.uint8).reshape(-1, 16),
            "digests": np.frombuffer(bytes(self._digests), np.uint8).reshape(-1, 32),
            "revisions": np.array(self._revisions, np.int32),
            "steps": np.array(self.steps, np.int32),
            "epochs": np.array(self._epochs, np.int64),
            "traits": np.array(self._traits, np.uint8),
            "states": np.array(self._states, np.uint8),
            # Software that selects otherwise must name this one otherwise, and so believe no earlier note.
            "unselected": np.array(self._unselected, np.uint8),
        }
        columns = {name: column[rows] for name, column in columns.items()}
        document: dict[str, Any] = {
            "odd": [[place, self._odd[row]] for place, row in enumerate(rows.tolist()) if row in self._odd]
        }
        for name, names in (("tasks", self._tasks), ("robots", self._robots), ("uris", self._uris)):
            document[name], columns[name] = names.dump(rows)
        return document, columns

    @classmethod
    def load(cls, document: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]]) -> EpisodeIndex:
        """What was dumped."""
        index = cls()
        index._ids, index._digests = bytearray(columns["ids"].tobytes()), bytearray(columns["digests"].tobytes())
        index._odd = {int(row): name for row, name in document["odd"]}
        for name, target in (
            ("revisions", index._revisions),
            ("steps", index.steps),
            ("epochs", index._epochs),
            ("traits", index._traits),
            ("states", index._states),
        ):
            target.frombytes(columns[name].tobytes())
        earlier = np.zeros(len(index._states), np.uint8)  # checkpoints that do not say
        index._unselected.frombytes(columns.get("unselected", earlier).tobytes())
        for name, names in (("tasks", index._tasks), ("robots", index._robots), ("uris", index._uris)):
            names.load(document[name], columns[name])
        for row in range(len(index._states)):
            index._rows.put(index._id(row), row)
        return index

    def _id(self, row: int) -> str:
        found = self._odd.get(row)
        return str(uuid.UUID(bytes=bytes(self._ids[16 * row : 16 * row + 16]))) if found is None else found


class Names:
    """A column of few different strings: `code` is the kind of `array` that holds their numbers."""

    def __init__(self, code: str) -> None:
        self.codes = array(code)
        self._names: list[str] = []
        self._by_name: dict[str, int] = {}

    def __getitem__(self, row: int) -> str:
        return self._names[self.codes[row]]

    def append(self, name: str) -> None:
        """One more row."""
        code = self._by_name.setdefault(name, len(self._names))
        if code == len(self._names):
            self._names.append(name)
        self.codes.append(code)

    def dump(self, rows: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Names in the order in which these rows use them first, and the rows' codes among those."""
        codes = np.array(self.codes, np.int64)[rows]
        used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return [self._names[code] for code in used[order].tolist()], rank[inverse]

    def load(self, names: list[str], codes: npt.NDArray[Any]) -> None:
        """Take up what was dumped."""
        self._names = list(names)
        self._by_name = {name: code for code, name in enumerate(names)}
        self.codes.extend(codes.tolist())
