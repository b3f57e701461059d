"""Decoded images on disk, up to a bound: what is drawn again is not decoded again.

A frame is found by its group's number and its place in the group. While there is room all are kept; then one group
of eight takes the places of others, chosen by chance: what is drawn often gets in soon, and most of what is drawn
once costs no writing. Losing an image costs time and nothing else, so a disk that fails does no harm. The last
`LEFT_FREE` of a disk is for those who cannot do without: then images give their places back, one by one.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import weakref

import numpy as np
import numpy.typing as npt
import structlog

from learner.frames import Room

_ONE_IN = 8
LEFT_FREE = 2**30
"""Bytes."""

_log = structlog.get_logger(__name__)


class DecodedImages:
    """At most `max_bytes` of images of `image_bytes` each."""

    def __init__(self, room: Room, image_bytes: int, max_bytes: int) -> None:
        self._size = image_bytes
        self._slots = max_bytes // image_bytes
        self._file = room.file()
        self.close = weakref.finalize(self, os.close, self._file)
        """The disk has its room back."""
        self._lock = threading.Lock()
        self._places: dict[int, dict[int, int]] = {}
        self._owners: list[tuple[int, int] | None] = []
        self._writes: list[int] = []
        self._free: set[int] = set()
        self._refused = 0
        self._crowded = False
        self._complained = False
        self._chance = random.Random(0)

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return len(self._owners) * self._size

    def wanted(self) -> bool:
        """Whether the next group should be kept, whole."""
        with self._lock:
            if not self._crowded and (self._free or len(self._owners) < self._slots):
                return True
            self._refused += 1
            return self._slots > 0 and self._refused % _ONE_IN == 0

    def read(self, group: int, place: int, into: npt.NDArray[np.uint8]) -> bool:
        """Copy an image into contiguous memory; False if it is not here; then anything may be written."""
        with self._lock:
            slot = self._places.get(group, {}).get(place)
            if slot is None:
                return False
            before = self._writes[slot]
        try:
            done = os.preadv(self._file, [into.data], slot * self._size)
        except OSError:
            return False
        with self._lock:
            return done == self._size and self._writes[slot] == before  # nobody wrote there meanwhile

    def keep(self, group: int, place: int, image: npt.NDArray[np.uint8]) -> None:
        """Have an image, if that is possible."""
        with self._lock:
            slot = None if place in self._places.get(group, {}) else self._slot()
            if slot is None:
                return
            self._writes[slot] += 1
        try:
            done = os.pwrite(self._file, np.ascontiguousarray(image).data, slot * self._size)
        except OSError as error:
            done = 0
            if not self._complained:
                self._complained = True
                _log.warning("decoded_images_not_kept", error=str(error))
        with self._lock:
            if done == self._size and place not in self._places.get(group, {}):  # two may have had the same
                self._owners[slot] = group, place
                self._places.setdefault(group, {})[place] = slot
            else:
                self._free.add(slot)

    def drop(self, groups: list[int]) -> None:
        """These numbers mean other groups from now on. Nobody reads or keeps any of them meanwhile."""
        with self._lock:
            for group in groups:
                for slot in self._places.pop(group, {}).values():
                    self._owners[slot] = None
                    self._free.add(slot)

    def _slot(self) -> int | None:
        self._crowded = _is_crowded(self._file)
        if self._crowded:
            self._give_back()
            return None
        if self._free:
            return self._free.pop()
        if (count := len(self._owners)) < self._slots:
            self._owners.append(None)
            if len(self._writes) == count:
                self._writes.append(0)
            return count
        if not count:
            return None
        slot = self._chance.randrange(count)
        return slot if self._disowned(slot) else None

    def _give_back(self) -> None:
        """The disk has the room of the last image back. How often it was written is kept: somebody may read it."""
        last = len(self._owners) - 1
        if last < 0 or not (last in self._free or self._disowned(last)):
            return
        self._free.discard(last)
        self._owners.pop()
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, last * self._size)

    def _disowned(self, slot: int) -> bool:
        """Take an image away; False: there is none, or somebody writes it just now."""
        owner = self._owners[slot]
        if owner is None:
            return False
        group, place = owner
        del self._places[group][place]
        self._owners[slot] = None
        return True


def _is_crowded(file: int) -> bool:
    try:
        disk = os.fstatvfs(file)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < LEFT_FREE
