"""Frames on disk: rows of fixed width in files that are mapped into memory.

What is drawn often stays in the page cache, which the kernel takes back when memory is short; the learner's own
memory holds none of it. The files have no name: whatever happens to the process, the disk has its room back.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import DiskFull
from learner.extents import Extents
from learner.policies.base import Floats

_FIRST_ROWS = 4096
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def own(directory: Path) -> None:
    """Make a directory that nobody else can look into.

    Raises:
        OSError: it cannot be made, is a link, or another user's.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} is a link, or another user's; set SOP_CACHE__DIRECTORY")


def _refuse(error: DiskFull) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class Room:
    """Where frames may lie. `full` is called when the disk takes no more: it waits and returns, or raises.

    `image_bytes`: of each camera's decoded images, at most.
    """

    directory: Path | None = None
    full: Callable[[DiskFull], None] = _refuse
    image_bytes: int = 2**30

    def file(self) -> int:
        """A file without a name, open for reading and writing."""
        if self.directory is not None:
            own(self.directory)
        number, name = tempfile.mkstemp(prefix="frames-", dir=self.directory)
        os.unlink(name)  # noqa: PTH108 - no Path is made of it
        return number

    def write(self, file: int, data: memoryview, position: int) -> None:
        """All of `data` at `position`; waits for room as `full` has it.

        Raises:
            DiskFull: if `full` does.
        """
        while len(data):
            try:
                written = os.pwrite(file, data, position)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                where = self.directory or tempfile.gettempdir()
                self.full(DiskFull(f"no room for frames in {where}: free some, or set SOP_CACHE__DIRECTORY"))
                continue
            data, position = data[written:], position + written


class Column:
    """Rows of one dtype and width in a file. `rows` is what to read from: [capacity, width], or [capacity]."""

    def __init__(self, room: Room, dtype: npt.DTypeLike, width: int | None) -> None:
        self._room = room
        self._dtype = np.dtype(dtype)
        self._shape = () if width is None else (width,)
        self._row_bytes = self._dtype.itemsize * (1 if width is None else width)
        self._file = room.file()
        self.close = weakref.finalize(self, os.close, self._file)
        """The disk has its room back once nobody reads any more."""
        self.rows: npt.NDArray[Any] = np.empty((0, *self._shape), self._dtype)

    def write(self, begin: int, rows: npt.NDArray[Any]) -> None:
        """Write rows [n, width] from row `begin` on. Rows that were never written are zero."""
        if begin + len(rows) > len(self.rows):
            self._grow(max(_FIRST_ROWS, 2 * len(self.rows), begin + len(rows)))
        # Written, not stored through the map: a full disk is an error here, and would be a SIGBUS there.
        data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._room.write(self._file, data, begin * self._row_bytes)

    def _grow(self, capacity: int) -> None:
        size = capacity * self._row_bytes
        os.ftruncate(self._file, size)
        if size == 0:  # of vectors without an element
            self.rows = np.empty((capacity, *self._shape), self._dtype)
            return
        mapped = mmap.mmap(self._file, size, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_RANDOM)
        self.rows = np.frombuffer(mapped, self._dtype).reshape(capacity, *self._shape)


FACTS = np.dtype([("skip", np.int32), ("left", np.int32), ("weight", np.float32), ("advantage", np.float32)])
"""In an episode's row n, of its n-th frame that may be drawn: `skip`, how many rows on that lies; `left` as
`runs_left`; and what the algorithm selected."""


class FrameStore:
    """States, actions and facts of frames by row. Rows of an episode follow one another."""

    def __init__(self, state_size: int, action_size: int, room: Room) -> None:
        self._states = Column(room, np.float32, state_size)
        self._actions = Column(room, np.float32, action_size)
        self._facts = Column(room, FACTS, None)
        self._extents = Extents()
        self.row_bytes = 4 * (state_size + action_size) + FACTS.itemsize
        """Of disk for each frame."""

    @property
    def states(self) -> Floats:
        """float32[capacity, d]."""
        return self._states.rows

    @property
    def actions(self) -> Floats:
        """float32[capacity, a]."""
        return self._actions.rows

    @property
    def facts(self) -> npt.NDArray[Any]:
        """FACTS[capacity]."""
        return self._facts.rows

    @property
    def end(self) -> int:
        """Rows of the files that were ever used."""
        return self._extents.end

    def add(self, states: Floats, actions: Floats, facts: npt.NDArray[Any]) -> int:
        """Write an episode's n rows, n > 0; the first one's number.

        Raises:
            DiskFull: if the room says so; nothing was added.
        """
        begin = self._extents.take(len(facts))
        try:
            self._states.write(begin, states)
            self._actions.write(begin, actions)
            self._facts.write(begin, facts)
        except BaseException:
            self._extents.give(begin, len(facts))
            raise
        return begin

    def remove(self, begin: int, count: int) -> None:
        """An episode's rows may be written over."""
        self._extents.give(begin, count)

    def close(self) -> None:
        """Let go of the files."""
        for column in (self._states, self._actions, self._facts):
            column.close()
