"""The steps of one open episode: in memory, and on disk once memory is wanted back.

A part on disk is an Arrow stream (no pickle); parts are appended to one file for each episode, which disappears
with its buffer: sealed and committed, taken away with its partition, or ended with the process.
"""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from consumers.intake import StepRecords
from consumers.steps import SCALARS, VECTORS, Steps
from consumers.vectors import Vectors
from infra.errors import SpillUnusable

Part = tuple[Steps, StepRecords | None]
"""Steps, and the records that they came from as long as one of them may still become a dead letter."""

_PLACES = ("partitions", "offsets", "appended_ms")


@dataclass(slots=True, weakref_slot=True)
class StepBuffer:
    """Parts of an episode, in the order in which they came. `nbytes` is what they hold of memory."""

    nbytes: int = 0
    _parts: list[Part] = field(default_factory=list)
    _file: Path | None = None
    _on_disk: int = 0

    def append(self, steps: Steps, records: StepRecords | None = None) -> None:
        """Add steps; `records`, if kept, is what their `row` points into. They are copied out of their batch."""
        if records is not None:
            records = records.take(steps.row)
            self.nbytes += records.nbytes
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
