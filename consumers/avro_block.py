"""Many Avro records of one schema as one container file in memory, and a check that they were told apart."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.codec import FRAME_BYTES, AvroSchema

_SYNC = b"sop-materializer"  # 16 bytes; any will do, the block is read once and thrown away
_MAGIC, _SCHEMA_ID = "frame_magic", "frame_schema_id"
_SEVEN_BITS = np.array([1 << (7 * n) for n in range(1, 10)], dtype=np.uint64)
_FIXED_BYTES = {"enum": 1, "boolean": 1, "float": 4, "double": 8}
"""An enum's symbol number takes one byte below 64 symbols."""

IntArray = npt.NDArray[np.int64]


def read_block(values: Sequence[bytes], sizes: IntArray, schema: AvroSchema) -> pl.DataFrame | None:
    """Columns of many framed bodies of one schema; None if any of them is not exactly one record of it.

    Args:
        values: the bodies one after the other, cut anywhere.
        sizes: bytes of each body, int64[rows].
        schema: the writer's.

    The five bytes of the frame are read as two leading fields, which saves cutting them off, and tells whether all
    name the same schema.
    """
    container = as_container(values, len(sizes), schema)
    if not _magic_everywhere(container, sizes):
        return None
    try:
        frame = pl.read_avro(io.BytesIO(container))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:  # noqa: BLE001 - a panic inside polars is not even an Exception
        return None
    if len(frame) != len(sizes) or not _same_frames(frame):
        return None
    frame = frame.drop(_MAGIC, _SCHEMA_ID)
    try:
        told_apart = np.array_equal(encoded_lengths(frame, schema) + FRAME_BYTES, sizes)
    except NotImplementedError:
        return None
    return frame if told_apart else None


def as_container(values: Sequence[bytes], count: int, schema: AvroSchema) -> bytes:
    """An Avro object container file with one block of `count` records (Avro 1.11, Object Container Files)."""
    metadata = {b"avro.schema": _framed_text(schema.text), b"avro.codec": b"null"}
    head = b"".join(_sized(name) + _sized(value) for name, value in metadata.items())
    size = _long(sum(map(len, values)))
    # Joined once: a copy of a whole batch costs as much as a quarter of its decoding.
    return b"".join((b"Obj\x01", _long(len(metadata)), head, b"\0", _SYNC, _long(count), size, *values, _SYNC))


def _magic_everywhere(container: bytes, sizes: IntArray) -> bool:
    """Whether each body begins with a zero byte. Read as a boolean, any but 1 would pass for it."""
    ends = np.cumsum(sizes)
    block = np.frombuffer(container, np.uint8)[-len(_SYNC) - int(ends[-1]) :]
    return not block[ends - sizes].any()


def _same_frames(frame: pl.DataFrame) -> bool:
    ids = frame[_SCHEMA_ID].to_numpy().view(np.uint32)  # bit by bit: as numbers some would be NaN
    return bool((ids == ids[0]).all())


@functools.cache
def _framed_text(text: str) -> bytes:
    """The schema with the frame's fields in front, and without defaults: polars refuses most, none is needed."""
    parsed = json.loads(text)
    for field in parsed["fields"]:
        field.pop("default", None)
    parsed["fields"] = [
        {"name": _MAGIC, "type": "boolean"},
        {"name": _SCHEMA_ID, "type": "float"},
        *parsed["fields"],
    ]
    return json.dumps(parsed).encode()


def encoded_lengths(frame: pl.DataFrame, schema: AvroSchema) -> IntArray:
    """Bytes that each row takes in Avro's binary encoding, int64[rows].

    A block is read as one run of bytes. If every row is as long as its own body was, each began where its body
    begins; if not, a broken body has swallowed part of the next.

    Raises:
        NotImplementedError: the schema has a field type that steps do not use.
    """
    total = np.zeros(len(frame), np.int64)
    for field in schema.parsed["fields"]:
        total += _field_lengths(frame[field["name"]], field["type"])
    return total


def _field_lengths(column: pl.Series, avro_type: object) -> IntArray:
    if isinstance(avro_type, list):
        if len(avro_type) != 2 or "null" not in avro_type:
            raise NotImplementedError(f"union {avro_type} in a step")
        other = next(branch for branch in avro_type if branch != "null")
        inner = _field_lengths(column.drop_nulls(), other)
        lengths = np.ones(len(column), np.int64)  # the branch number
        lengths[column.is_not_null().to_numpy()] += inner
        return lengths
    if isinstance(avro_type, dict):
        avro_type = avro_type["type"]
    if avro_type in _FIXED_BYTES:
        return np.full(len(column), _FIXED_BYTES[str(avro_type)], np.int64)
    if avro_type in ("int", "long"):
        return _varint_lengths(column.to_physical().to_numpy())
    if avro_type == "string":
        return _with_prefix(column.str.len_bytes().to_numpy())
    if avro_type == "bytes":
        return _with_prefix(column.bin.size().to_numpy())
    raise NotImplementedError(f"{avro_type} in a step")


def _with_prefix(sizes: npt.NDArray[np.generic]) -> IntArray:
    plain = sizes.astype(np.int64)
    return plain + _varint_lengths(plain)


def _varint_lengths(values: npt.NDArray[np.generic]) -> IntArray:
    signed = values.astype(np.int64)
    if len(signed) > 2 and (low := int(signed.min())) >= 0:
        shortest, longest = _varint_lengths(np.array([low, signed.max()])).tolist()
        if shortest == longest:  # most columns grow slowly, or not at all
            return np.full(len(signed), shortest, np.int64)
    zigzag = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    return np.searchsorted(_SEVEN_BITS, zigzag, side="right").astype(np.int64) + 1


def _long(value: int) -> bytes:
    rest = value << 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _sized(value: bytes) -> bytes:
    return _long(len(value)) + value
