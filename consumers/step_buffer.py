"""The steps of one open episode: in memory, and on disk once memory is wanted back.

A part on disk is an Arrow stream (no pickle); parts are appended to one file for each episode, which disappears
with its buffer: sealed and committed, taken away with its partition, or ended with the process.
"""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from consumers.records import Origin, Record, origin
from consumers.steps import SCALARS, VECTORS, Steps, Vectors
from infra.errors import SpillUnusable

Part = tuple[Steps, Sequence[Record] | None]
"""Steps, and the records that they came from as long as one of them may still become a dead letter."""

_RECORD_BYTES = 200
"""Rough cost of one consumed record beside its value."""


@dataclass(frozen=True, slots=True)
class KeptRecord:
    """A record that was on disk, with the methods of Kafka's client."""

    place: Origin

    def topic(self) -> str:
        """Its topic."""
        return self.place.topic

    def partition(self) -> int:
        """Its partition number."""
        return self.place.partition

    def offset(self) -> int:
        """Its offset."""
        return self.place.offset

    def timestamp(self) -> tuple[int, int]:
        """LogAppendTime, and milliseconds since the epoch."""
        return 2, self.place.appended_ms

    def key(self) -> bytes | None:
        """Its key."""
        return self.place.key

    def value(self) -> bytes | None:
        """Its value."""
        return self.place.value


@dataclass(slots=True, weakref_slot=True)
class StepBuffer:
    """Parts of an episode, in the order in which they came. `nbytes` is what they hold of memory."""

    nbytes: int = 0
    _parts: list[Part] = field(default_factory=list)
    _file: Path | None = None
    _on_disk: int = 0

    def append(self, steps: Steps, records: Sequence[Record] | None = None) -> None:
        """Add steps; `records`, if kept, is what their `row` points into. They are copied out of their batch."""
        if records is not None:
            records = [records[row] for row in steps.row.tolist()]
            self.nbytes += sum(_RECORD_BYTES + len(record.value() or b"") for record in records)
        own = steps.copied()
        self._parts.append((own, records))
        self.nbytes += own.nbytes

    def parts(self) -> Iterator[Part]:
        """All parts, those on disk first.

        Raises:
            SpillUnusable: the file cannot be read.
        """
        if self._file is not None:
            try:
                with self._file.open("rb") as file:
                    on_disk = [_part_of(pa.ipc.open_stream(file).read_all()) for _ in range(self._on_disk)]
            except (OSError, pa.ArrowInvalid) as error:
                raise SpillUnusable(f"cannot read {self._file}: {error}") from error
            yield from on_disk
        yield from self._parts

    def steps(self) -> list[Steps]:
        """The steps of all parts."""
        return [steps for steps, _ in self.parts()]

    def clear(self) -> None:
        """Forget everything."""
        self._parts.clear()
        self.nbytes = 0
        self._on_disk = 0
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    def spill(self, folder: Path) -> int:
        """Move what is in memory to a file in `folder`; the bytes written.

        Raises:
            OSError: the disk is full or not writable. Nothing is lost: what is in memory stays there.
        """
        if not self._parts:
            return 0
        if self._file is None:
            path = folder / f"{uuid.uuid4().hex}.arrow"
            weakref.finalize(self, _unlink, path)
        else:
            path = self._file
        before = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                for part in self._parts:
                    table = _table_of(part)
                    with pa.ipc.new_stream(file, table.schema) as stream:
                        stream.write_table(table)
        except OSError:
            if path.exists():
                os.truncate(path, before)
            raise
        self._file = path
        self._on_disk += len(self._parts)
        self._parts = []
        self.nbytes = 0
        return path.stat().st_size - before

    def __bool__(self) -> bool:
        return bool(self._parts) or self._on_disk > 0


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _table_of(part: Part) -> pa.Table:
    steps, records = part
    columns: dict[str, Any] = {name: pa.array(getattr(steps, name)) for name in SCALARS}
    for name in VECTORS:
        vectors: Vectors = getattr(steps, name)
        columns[name] = pa.array([vectors.value(at) for at in range(len(vectors))], pa.binary())
    if records is not None:
        places = [origin(record) for record in records]
        columns["record_topic"] = pa.array([place.topic for place in places], pa.string())
        columns["record_partition"] = pa.array([place.partition for place in places], pa.int32())
        columns["record_offset"] = pa.array([place.offset for place in places], pa.int64())
        columns["record_ms"] = pa.array([place.appended_ms for place in places], pa.int64())
        columns["record_key"] = pa.array([place.key for place in places], pa.binary())
        columns["record_value"] = pa.array([place.value for place in places], pa.binary())
    return pa.table(columns)


def _part_of(table: pa.Table) -> Part:
    columns: dict[str, Any] = {name: table.column(name).to_numpy() for name in SCALARS}
    columns |= {name: Vectors.from_values(table.column(name).to_pylist()) for name in VECTORS}
    records = None
    if "record_topic" in table.column_names:
        names = ("topic", "partition", "offset", "ms", "key", "value")
        rows = zip(*(table.column(f"record_{name}").to_pylist() for name in names), strict=True)
        records = [KeptRecord(Origin(*row)) for row in rows]
    return Steps(**columns), records
