"""Frames of one camera: encoded on disk in groups, decoded in the background when a batch needs them.

What is drawn does not depend on what is decoded already, nor on when: `expect` and the images that are kept
(`learner.decoded`) decide about speed only. In memory are two batches of images, and what a few threads decode.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from infra.footage import View
from infra.telemetry import FRAMES_UNREADABLE
from infra.video_groups import GroupDecoder
from learner.decoded import DecodedImages
from learner.extents import Extents
from learner.frames import Column, Room
from learner.tracks import Track

WHERE = np.dtype([("group", np.int64), ("length", np.int32), ("place", np.int32)])
"""Of a row's frame: where the bytes of its group begin (−1: there is no frame), how many they are; its place."""

_SAMPLES_OF_A_JOB = 8

_log = structlog.get_logger(__name__)


def decoding_threads() -> ThreadPoolExecutor:
    """Threads that decode."""
    return ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), thread_name_prefix="decode")


@dataclass(frozen=True, slots=True)
class _Begun:
    """Images of these rows that are being decoded into `view`."""

    rows: npt.NDArray[np.int64]
    view: View
    jobs: list[Future[None]]

    def wait(self) -> None:
        for job in self.jobs:
            job.result()


class CameraFrames:
    """By the rows of a `FrameStore`."""

    def __init__(
        self, shape: tuple[int, int, int], batch_size: int, room: Room, threads: ThreadPoolExecutor
    ) -> None:
        """`shape` of an image; `batch_size`: the most rows that are asked for at once."""
        self._shape = shape
        self._room, self._threads = room, threads
        self._where = Column(room, WHERE, None)
        self._file = room.file()
        self._close = weakref.finalize(self, os.close, self._file)
        self._extents = Extents()
        self._decoded = DecodedImages(room, int(np.prod(shape)), room.image_bytes)
        self._views = [_empty_view(batch_size, shape) for _ in range(2)]
        self._begun: _Begun | None = None
        self._local = threading.local()

    @property
    def nbytes(self) -> int:
        """Of disk."""
        return len(self._where.rows) * WHERE.itemsize + self._extents.end + self._decoded.nbytes

    def add(self, begin: int, count: int, track: Track | None) -> None:
        """What an episode's rows show, from row `begin` on; None: nothing.

        Raises:
            DiskFull: if the room says so; nothing was added.
        """
        where = np.zeros(count, WHERE)
        where["group"] = -1
        data = b"".join(track.groups) if track is not None else b""
        at = self._extents.take(len(data)) if data else 0
        try:
            if track is not None and data:
                lengths = np.array([len(group) for group in track.groups], np.int32)
                begins = at + np.cumsum(lengths, dtype=np.int64) - lengths
                seen = track.group >= 0
                where["group"][seen] = begins[track.group[seen]]
                where["length"][seen] = lengths[track.group[seen]]
                where["place"] = track.place
                self._room.write(self._file, memoryview(data), at)
            self._where.write(begin, where)
        except BaseException:
            if data:
                self._extents.give(at, len(data))
            raise

    def remove(self, begin: int, count: int) -> None:
        """An episode's rows mean others from now on."""
        self._forget_begun()
        where = np.unique(self._where.rows[begin : begin + count])
        where = where[where["group"] >= 0]
        if len(where):
            first, last = where[0], where[-1]
            self._decoded.drop(np.unique(where["group"]).tolist())
            self._extents.give(int(first["group"]), int(last["group"] + last["length"] - first["group"]))

    def expect(self, rows: npt.NDArray[np.int64]) -> None:
        """Begin to decode what will probably be taken next, in this order."""
        self._forget_begun()
        view = _first(self._views[1], len(rows))
        self._begun = _Begun(rows, view, self._begin(rows, np.arange(len(rows)), view))

    def take(self, rows: npt.NDArray[np.int64]) -> View:
        """What these rows show, in their order. It is written again by the `expect` after the next."""
        self._views.reverse()
        begun, self._begun = self._begun, None
        view = _first(self._views[0], len(rows))
        other = np.ones(len(rows), np.bool_)
        if begun is not None:
            begun.wait()
            both = min(len(rows), len(begun.rows))
            other[:both] = rows[:both] != begun.rows[:both]
        _Begun(rows, view, self._begin(rows, np.flatnonzero(other), view)).wait()
        return view

    def close(self) -> None:
        """Let go of the files."""
        self._forget_begun()
        self._where.close()
        self._close()
        self._decoded.close()

    def _forget_begun(self) -> None:
        if self._begun is not None:
            self._begun.wait()
            self._begun = None

    def _begin(
        self, rows: npt.NDArray[np.int64], samples: npt.NDArray[np.int64], view: View
    ) -> list[Future[None]]:
        """Have these samples' images decoded, whose rows are `rows[samples]`."""
        where = self._where.rows[rows[samples]]
        absent = where["group"] < 0
        view.images[samples[absent]] = 0
        view.present[samples] = ~absent
        order = np.argsort(where["group"], kind="stable")[int(absent.sum()) :]
        found = zip(where[order].tolist(), samples[order].tolist(), strict=True)
        jobs, job = [], []
        for (group, length), same in itertools.groupby(found, lambda one: one[0][:2]):
            job.append((group, length, [(sample, row[2]) for row, sample in same]))
            if sum(len(part[2]) for part in job) >= _SAMPLES_OF_A_JOB:
                jobs.append(self._threads.submit(self._fill, job, view))
                job = []
        if job:
            jobs.append(self._threads.submit(self._fill, job, view))
        return jobs

    def _fill(self, job: Iterable[tuple[int, int, list[tuple[int, int]]]], view: View) -> None:
        for group, length, wanted in job:
            missing = [
                (sample, place)
                for sample, place in wanted
                if not self._decoded.read(group, place, view.images[sample])
            ]
            if missing:
                self._decode(group, length, missing, view)

    def _decode(self, group: int, length: int, wanted: list[tuple[int, int]], view: View) -> None:
        everything = self._decoded.wanted()
        count = 1 + max(place for _, place in wanted)
        found = 0
        images = self._decoder.images(os.pread(self._file, length, group), None if everything else count)
        for image in images:
            if image.shape != self._shape:
                break
            for sample, place in wanted:
                if place == found:
                    view.images[sample] = image
            if everything:
                self._decoded.keep(group, found, image)
            found += 1
        for sample, place in wanted:
            if place >= found:  # its hash is right, its content is not: as if it had been dropped
                view.images[sample], view.present[sample] = 0, False
                FRAMES_UNREADABLE.inc()

    @property
    def _decoder(self) -> GroupDecoder:
        decoder: Any = getattr(self._local, "decoder", None)
        if decoder is None:
            decoder = self._local.decoder = GroupDecoder()
        return decoder  # type: ignore[no-any-return]


def _first(view: View, count: int) -> View:
    return View(view.images[:count], view.present[:count])


def _empty_view(size: int, shape: tuple[int, int, int]) -> View:
    return View(np.zeros((size, *shape), np.uint8), np.zeros(size, np.bool_))
