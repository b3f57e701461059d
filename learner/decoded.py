"""Decoded images on disk, up to a bound: what is drawn again is not decoded again.

A frame is found by its group's number and its place in the group. While there is room all are kept; then one group
of eight takes the places of others, chosen by chance: what is drawn often gets in soon, and most of what is drawn
once costs no writing. Losing an image costs time and nothing else, so a disk that fails does no harm.
"""

from __future__ import annotations

import os
import random
import threading
import weakref

import numpy as np
import numpy.typing as npt
import structlog

from learner.frames import Room

_ONE_IN = 8

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
        self._free: list[int] = []
        self._refused = 0
        self._complained = False
        self._chance = random.Random(0)

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return len(self._owners) * self._size

    def wanted(self) -> bool:
        """Whether the next group should be kept, whole."""
        with self._lock:
            if self._free or len(self._owners) < self._slots:
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
                self._free.append(slot)

    def drop(self, groups: list[int]) -> None:
        """These numbers mean other groups from now on. Nobody reads or keeps any of them meanwhile."""
        with self._lock:
            for group in groups:
                for slot in self._places.pop(group, {}).values():
                    self._owners[slot] = None
                    self._free.append(slot)

    def _slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        if len(self._owners) < self._slots:
            self._owners.append(None)
            self._writes.append(0)
            return len(self._owners) - 1
        slot = self._chance.randrange(self._slots) if self._slots else 0
        owner = self._owners[slot] if self._slots else None
        if owner is None:  # somebody writes there just now
            return None
        group, place = owner
        del self._places[group][place]
        self._owners[slot] = None
        return slot
