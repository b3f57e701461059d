"""An episode's camera frames as arrays, from its payload and the objects that it refers to.

    cameras = Footage(payload_bytes, Segments(store))
    view = cameras.read("wrist")            # view.images uint8[T, H, W, 3], view.present bool[T]

T is the number of rows of the payload: row by row what the robot saw when it took that step. Images of colour are
H.264 (`infra.video`): of a textured, moving, noisy scene of 224×224 each frame comes back with 30 dB of PSNR or
more (34 dB in the mean; 28 dB at least at 96×96, where hard coloured edges weigh more). uint16 images come back as
they were. A step whose frame is missing has `present` False, and zeros.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore, sha256_hex
from infra.video import Image, SegmentUnreadable, decode_segment

COLUMN_PREFIX = "frame_"


class FramesUnusable(Exception):
    """Frames that a payload refers to are missing, altered, or no images; the text names the object."""


@dataclass(frozen=True, slots=True)
class View:
    """What one camera saw: images uint8[T, H, W, 3] or uint16[T, H, W], present bool[T]."""

    images: Image
    present: npt.NDArray[np.bool_]

    def only(self, rows: npt.NDArray[np.int64]) -> View:
        """Some of the rows, copied."""
        return View(self.images[rows], self.present[rows])


@dataclass(frozen=True, slots=True)
class Place:
    """One segment as a payload names it: `data` instead of `uri` for a still."""

    uri: str | None
    sha256: str
    codec: str
    data: bytes | None


class Segments:
    """Segments of the object store, whose bytes must be those that were recorded."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, place: Place) -> bytes:
        """A segment's bytes.

        Raises:
            FramesUnusable: missing, altered, or in another bucket.
            ObjectStoreUnavailable: no answer in time.
        """
        where = place.uri or "a still in the payload"
        try:
            data = place.data if place.uri is None else self._store.get(self._store.key(place.uri))
        except (ObjectMissing, ValueError) as error:
            raise FramesUnusable(f"{where}: {error}") from error
        if data is None:
            raise FramesUnusable(f"a segment {place.sha256} without address and without bytes")
        if (digest := sha256_hex(data)) != place.sha256:
            raise FramesUnusable(f"{where} hashes to {digest}, recorded was {place.sha256}")
        return data


class Footage:
    """Cameras of one episode.

    Attributes:
        cameras: their names.
        steps: int32[T], index of each row's step.

    Raises:
        FramesUnusable: the bytes are no payload.
    """

    def __init__(self, payload: bytes, segments: Segments) -> None:
        self._segments = segments
        try:
            with pq.ParquetFile(io.BytesIO(payload)) as file:
                names = [name for name in file.schema_arrow.names if name.startswith(COLUMN_PREFIX)]
                table = file.read(columns=["index", *names])
        except (pa.ArrowException, KeyError, OSError) as error:
            raise FramesUnusable(f"not an episode's payload: {error!r}") from error
        self.steps: npt.NDArray[np.int32] = table["index"].to_numpy()
        self.cameras = tuple(name.removeprefix(COLUMN_PREFIX) for name in names)
        self._columns: dict[str, pa.ChunkedArray] = {
            name.removeprefix(COLUMN_PREFIX): table[name] for name in names
        }

    def places(self, camera: str) -> tuple[list[Place], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Segments of a camera; and for each row its segment's number (−1: no frame) and the frame's index in it.

        Raises:
            KeyError: the episode has no such camera.
        """
        column = self._columns[camera].combine_chunks()
        numbers: dict[str, int] = {}
        found: list[Place] = []
        segment = np.full(len(column), -1, np.int32)
        index = np.zeros(len(column), np.int32)
        for row in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist():
            digest = column.field("sha256")[row].as_py()
            if digest not in numbers:
                numbers[digest] = len(found)
                values: dict[str, Any] = column[row].as_py()
                found.append(Place(values["uri"], digest, values["codec"], values["data"]))
            segment[row], index[row] = numbers[digest], column.field("index")[row].as_py()
        return found, segment, index

    def read(self, camera: str, rows: slice = slice(None)) -> View | None:
        """What a camera saw at the given rows, by default all; None if nothing of it is there.

        Only segments with a frame of these rows are fetched and decoded.

        Raises:
            KeyError: the episode has no such camera.
            FramesUnusable: a segment is missing, altered, or no images.
            ObjectStoreUnavailable: no answer in time.
        """
        places, segment, index = self.places(camera)
        segment, index = segment[rows], index[rows]
        images: Image | None = None
        for number in np.unique(segment[segment >= 0]).tolist():
            place, here = places[number], segment == number
            try:
                decoded = decode_segment(self._segments.get(place), place.codec)
                if images is None:
                    images = np.zeros((len(segment), *decoded.shape[1:]), decoded.dtype)
                images[here] = decoded[index[here]]
            except (SegmentUnreadable, IndexError, ValueError) as error:
                raise FramesUnusable(f"{place.uri or place.sha256}: {error}") from error
        return None if images is None else View(images, segment >= 0)
