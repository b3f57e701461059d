"""What robot and encoder say to each other. Pixels are in memory that both see; these say where.

Fixed-size binary records, so that a step costs one write: to the encoder on its standard input, and back, on a
pipe of its own, which places are free again. Words come back on its standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

RECORD = struct.Struct("<BBHiq")
"""kind, camera, 0, step, offset in the shared memory."""
EPISODE_ID_BYTES = 36


class Kind(IntEnum):
    """Of a record; BEGIN is followed by the episode's id."""

    BEGIN = 1
    FRAME = 2
    END = 3
    FREE = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What the encoder says: it is ready; an episode is on disk; what is wrong."""

    ready: bool = False
    done: str = ""
    error: str = ""

    def line(self) -> str:
        """As it travels."""
        return json.dumps({"ready": self.ready, "done": self.done, "error": self.error}) + "\n"


def told(line: str) -> Told:
    """As `Told.line` wrote it.

    Raises:
        ValueError, TypeError: it is none.
    """
    return Told(**json.loads(line))


def begin(episode_id: str) -> bytes:
    """An episode begins; its folder is made."""
    return RECORD.pack(Kind.BEGIN, 0, 0, 0, 0) + episode_id.encode()


def frame(camera: int, step: int, offset: int) -> bytes:
    """A frame lies at `offset`."""
    return RECORD.pack(Kind.FRAME, camera, 0, step, offset)


def end() -> bytes:
    """The episode is over."""
    return RECORD.pack(Kind.END, 0, 0, 0, 0)


def free(camera: int, offset: int) -> bytes:
    """The place at `offset` is not needed any more."""
    return RECORD.pack(Kind.FREE, camera, 0, 0, offset)


class Splitter:
    """Records out of a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, int, int, str]]:
        """Kind, camera, step, offset, and episode id of each record that is whole now."""
        data = self._rest + data
        at = 0
        while len(data) - at >= RECORD.size:
            kind, camera, _, step, offset = RECORD.unpack_from(data, at)
            size = RECORD.size + (EPISODE_ID_BYTES if kind == Kind.BEGIN else 0)
            if len(data) - at < size:
                break
            name = data[at + RECORD.size : at + size].decode()
            at += size
            yield Kind(kind), camera, step, offset, name
        self._rest = data[at:]
