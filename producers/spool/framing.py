"""How events lie in a file of the spool: frame after frame, each of which says whether it is whole.

mark  4 bytes   where to look for the next frame when something in between is damaged
crc32 4 bytes   of all that follows
position 8, taken_at 8 (float, unix seconds), kind 1, length of the trace 1, of the body 4; little-endian
trace, body
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MARK = b"\xf5sop"
_PREFIX = struct.Struct("<4sI")
_FACTS = struct.Struct("<QdBBI")
_pack_prefix, _pack_facts, _crc32 = _PREFIX.pack, _FACTS.pack, zlib.crc32
OVERHEAD = _PREFIX.size + _FACTS.size


class Stored(NamedTuple):
    """An event as it lies in a file."""

    position: int
    taken_at: float
    kind: int
    traceparent: bytes
    body: bytes


class Unpacked(NamedTuple):
    """Whole frames, where they end, and whether what follows is wrong, and not only unfinished."""

    events: list[Stored]
    end: int
    wrong: bool


def pack(position: int, kind: int, taken_at: float, traceparent: bytes, body: bytes) -> bytes:
    """The frame of an event; a trace has at most 255 bytes, a body less than 4 GiB."""
    data = _pack_facts(position, taken_at, kind, len(traceparent), len(body)) + traceparent + body
    return _pack_prefix(MARK, _crc32(data)) + data


def unpack(data: bytes, at: int = 0, limit: int = 2**62) -> Unpacked:
    """Whole frames from `at` on, one after the other, at most `limit`."""
    events: list[Stored] = []
    view = memoryview(data)
    while len(events) < limit:
        facts = at + _PREFIX.size
        trace = facts + _FACTS.size
        if trace > len(data):
            seen = data[at : at + len(MARK)]
            return Unpacked(events, at, not MARK.startswith(seen))
        mark, crc = _PREFIX.unpack_from(data, at)
        if mark != MARK:
            return Unpacked(events, at, True)
        position, taken_at, kind, trace_length, length = _FACTS.unpack_from(data, facts)
        body = trace + trace_length
        end = body + length
        if end > len(data):
            return Unpacked(events, at, False)
        if _crc32(view[facts:end]) != crc:
            return Unpacked(events, at, True)
        events.append(Stored(position, taken_at, kind, data[trace:body], data[body:end]))
        at = end
    return Unpacked(events, at, False)


def find(data: bytes, at: int) -> int | None:
    """Where the next whole frame begins, at `at` or later; None when there is none."""
    while (at := data.find(MARK, at)) >= 0:
        if unpack(data, at, 1).events:
            return at
        at += 1
    return None
