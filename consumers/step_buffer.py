"""The steps of one open episode: in memory, and on disk once memory is wanted back.

A part on disk is an Arrow stream (no pickle); parts are appended to one file for each episode, which disappears
with its buffer: sealed and committed, taken away with its partition, or ended with the process.

At a robot's own pace a batch brings a few steps of each episode. Parts are joined as they grow in number, each
step a few times at most, so that an hour of them is some dozens of parts and not tens of thousands.
"""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from consumers.intake import StepRecords
from consumers.steps import SCALARS, VECTORS, Steps
from consumers.vectors import Vectors
from infra.errors import SpillUnusable

Part = tuple[Steps, StepRecords | None]
"""Steps, and the records that they came from as long as one of them may still become a dead letter."""

FAN = 32
"""Parts of one size that are joined to one of the next."""
PART_BYTES = 800
"""What a part costs beside its columns (measured: 800 to 1,000), and the records that it came from once more."""

_PLACES = ("partitions", "offsets", "appended_ms")


@dataclass(slots=True)
class _Held:
    """A part in memory, what it costs, and how often it was joined with others."""

    part: Part
    nbytes: int
    level: int = 0


@dataclass(slots=True, weakref_slot=True)
class StepBuffer:
    """Parts of an episode, in the order in which they came.

    `nbytes` is what they hold of memory, `disk_bytes` what they would hold more if all were read back.
    """

    nbytes: int = 0
    disk_bytes: int = 0
    _held: list[_Held] = field(default_factory=list)
    _file: Path | None = None
    _on_disk: int = 0

    def append(self, steps: Steps, records: StepRecords | None = None) -> None:
        """Add steps; `records`, if kept, is what their `row` points into. They are copied out of their batch."""
        self._hold((steps.copied(), records.take(steps.row) if records is not None else None), 0)
        while len(self._held) >= FAN and self._held[-FAN].level == self._held[-1].level:
            parts, level = [one.part for one in self._held[-FAN:]], self._held[-1].level
            self.nbytes -= sum(one.nbytes for one in self._held[-FAN:])
            del self._held[-FAN:]
            self._hold(_joined(parts), level + 1)

    def _hold(self, part: Part, level: int) -> None:
        steps, records = part
        nbytes = steps.nbytes + PART_BYTES + (records.nbytes + PART_BYTES if records is not None else 0)
        self._held.append(_Held(part, nbytes, level))
        self.nbytes += nbytes

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
        yield from (one.part for one in self._held)

    def steps(self) -> list[Steps]:
        """The steps of all parts."""
        return [steps for steps, _ in self.parts()]

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.nbytes = self.disk_bytes = 0
        self._on_disk = 0
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    def spill(self, folder: Path) -> int:
        """Move what is in memory to a file in `folder`, as one part; the bytes written.

        Raises:
            OSError: the disk is full or not writable. Nothing is lost: what is in memory stays there.
        """
        if not self._held:
            return 0
        path = self._file or folder / f"{uuid.uuid4().hex}.arrow"
        before = path.stat().st_size if self._file else 0
        try:
            table = _table_of(_joined([one.part for one in self._held]))
            with path.open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
            written = path.stat().st_size - before
        except OSError:
            _cut(path, before)
            raise
        if self._file is None:
            weakref.finalize(self, _unlink, path)
            self._file = path
        self._on_disk += 1
        self._held = []
        self.disk_bytes += self.nbytes
        self.nbytes = 0
        return written

    def __bool__(self) -> bool:
        return bool(self._held) or self._on_disk > 0


def _joined(parts: Sequence[Part]) -> Part:
    """Several parts as one. Whether records are kept is the same for all parts of a buffer."""
    if len(parts) == 1:
        return parts[0]
    steps = Steps.joined([steps for steps, _ in parts])
    records = [records for _, records in parts if records is not None]
    steps.row[:] = np.arange(len(steps))
    return steps, StepRecords.joined(records) if records else None


def _cut(path: Path, size: int) -> None:
    """Take back what a write left that did not come to its end; an empty file would be nobody's."""
    if size:
        os.truncate(path, size)
    else:
        path.unlink(missing_ok=True)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _table_of(part: Part) -> pa.Table:
    steps, records = part
    columns: dict[str, Any] = {name: pa.array(steps.column(name)) for name in SCALARS}
    for name in VECTORS:
        vectors: Vectors = getattr(steps, name)
        columns[name] = pa.array([vectors.value(at) for at in range(len(vectors))], pa.binary())
    if records is not None:
        columns |= {f"record_{name}": pa.array(getattr(records, name)) for name in _PLACES}
        columns["record_key"] = pa.array(records.keys, pa.binary())
        columns["record_value"] = pa.array(records.values(), pa.binary())
    return pa.table(columns)


def _part_of(table: pa.Table) -> Part:
    scalars = {name: table.column(name).to_numpy() for name in SCALARS}
    vectors = [Vectors.from_values(table.column(name).to_pylist()) for name in VECTORS]
    records = None
    if "record_key" in table.column_names:
        places = {name: table.column(f"record_{name}").to_numpy() for name in _PLACES}
        values = table.column("record_value").to_pylist()
        records = StepRecords.of_values(values, table.column("record_key").to_pylist(), **places)
    return Steps.of(scalars, *vectors), records
