"""What cameras saw in an episode, still encoded: fetched with its payload, cut at key frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.footage import Footage, FramesUnusable, Place, Segments
from infra.object_store import ObjectStore
from infra.video import SegmentUnreadable
from infra.video_groups import cut_segment
from learner.cache import PayloadCache
from learner.policies.artifact import pack_json, unpack_json

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Track:
    """What one camera saw in an episode's n steps.

    size: height and width; None where there is no frame at all. groups: each once, as `infra.video_groups` has
    them; group int32[n], the one with a step's frame, −1: there is none; place int32[n], which of its frames.
    """

    size: tuple[int, int] | None
    groups: tuple[bytes, ...]
    group: Ints
    place: Ints

    @classmethod
    def elsewhere(cls, size: tuple[int, int] | None) -> Track:
        """Of an episode whose frames lie with another rank."""
        return cls(size, (), np.empty(0, np.int32), np.empty(0, np.int32))


class CachedSegments(Segments):
    """Segments through the same cache as payloads."""

    def __init__(self, store: ObjectStore, cache: PayloadCache | None) -> None:
        super().__init__(store)
        self._cache = cache

    def get(self, place: Place) -> bytes:
        """A segment's bytes; see `Segments.get`."""
        cached = self._cache.get(place.sha256) if self._cache is not None and place.uri is not None else None
        if cached is not None:
            return cached
        data = super().get(place)
        if self._cache is not None and place.uri is not None:
            self._cache.put(place.sha256, data)
        return data


def tracks_of(payload: bytes, cameras: Sequence[str], segments: Segments) -> dict[str, Track]:
    """Tracks of these cameras, by name; without those that the episode does not have.

    Raises:
        FramesUnusable: a segment is missing, altered, or no colour images; or lacks a frame that it should hold.
        ObjectStoreUnavailable: no answer in time.
    """
    if not cameras:
        return {}
    footage = Footage(payload, segments)
    return {name: _track(*footage.places(name), segments) for name in cameras if name in footage.cameras}


def warm(payload: bytes, cameras: Sequence[str], segments: Segments) -> None:
    """Have the segments of these cameras fetched, into whatever cache there is. Raises as `tracks_of` does."""
    footage = Footage(payload, segments)
    for name in cameras:
        if name in footage.cameras:
            for place in footage.places(name)[0]:
                segments.get(place)


def _track(places: list[Place], segment: Ints, index: Ints, segments: Segments) -> Track:
    group, inside = np.full(len(segment), -1, np.int32), np.zeros(len(segment), np.int32)
    groups: list[bytes] = []
    sizes: set[tuple[int, int]] = set()
    for number, place in enumerate(places):
        here = np.flatnonzero(segment == number)
        wanted = index[here]
        where = place.uri or place.sha256
        try:
            cut = cut_segment(segments.get(place), place.codec)
        except SegmentUnreadable as error:
            raise FramesUnusable(f"{where}: {error}") from error
        if wanted.min() < 0 or wanted.max() >= cut.count:
            raise FramesUnusable(f"{where} has {cut.count} frames, and frame {wanted.max()} is wanted")
        sizes.add((cut.height, cut.width))
        which = np.searchsorted(cut.firsts, wanted, side="right") - 1
        used, among = np.unique(which, return_inverse=True)
        group[here] = len(groups) + among
        inside[here] = wanted - cut.firsts[which]
        groups += [cut.groups[one] for one in used.tolist()]
    if len(sizes) > 1:
        raise FramesUnusable(f"one camera's frames are of different sizes: {sorted(sizes)}")
    return Track(next(iter(sizes), None), tuple(groups), group, inside)


def pack_tracks(tracks: Mapping[str, Track]) -> bytes:
    """As bytes, for a file; of no tracks none."""
    if not tracks:
        return b""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, track in enumerate(tracks.values()):
        arrays[f"{number}.group"], arrays[f"{number}.place"] = track.group, track.place
        arrays[f"{number}.lengths"] = np.array([len(data) for data in track.groups], np.int64)
        arrays[f"{number}.groups"] = np.frombuffer(b"".join(track.groups), np.uint8)
    return pack_json([[name, track.size] for name, track in tracks.items()], arrays)


def unpack_tracks(data: bytes) -> dict[str, Track]:
    """What was packed."""
    if not data:
        return {}
    names, arrays = unpack_json(data)
    found = {}
    for number, (name, size) in enumerate(names):
        joined = arrays[f"{number}.groups"].tobytes()
        ends = np.cumsum(arrays[f"{number}.lengths"]).tolist()
        groups = tuple(joined[a:b] for a, b in zip([0, *ends], ends, strict=False))
        where = None if size is None else (size[0], size[1])
        found[name] = Track(where, groups, arrays[f"{number}.group"], arrays[f"{number}.place"])
    return found
