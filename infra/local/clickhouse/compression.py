"""Content encodings of requests and responses, streamed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import lz4.frame
import zstandard

from infra.local.clickhouse.errors import CANNOT_DECOMPRESS, CANNOT_READ_ALL_DATA, NOT_IMPLEMENTED, QueryError

# Decoded at once. What little a client sends may become a thousand times as much (zstd: 32,000 times).
_SLICE_BYTES = 64 << 10
_ZSTD_SLICE_BYTES = 1 << 10


def decoded(encoding: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decode the body of a request, in pieces that memory can hold.

    Raises:
        QueryError: the encoding is not known, or the body is not in it, or ends within a frame.
    """
    size = _SLICE_BYTES
    match encoding.strip().lower():
        case "" | "identity":
            return (piece for piece in pieces if piece)
        case "lz4":
            frames = _Frames(lz4.frame.LZ4FrameDecompressor)
        case "zstd":
            frames, size = _Frames(lambda: zstandard.ZstdDecompressor().decompressobj()), _ZSTD_SLICE_BYTES
        case "gzip":
            frames = _Frames(lambda: zlib.decompressobj(31))
        case "deflate":
            frames = _Frames(lambda: zlib.decompressobj(15))
        case _:
            raise QueryError(NOT_IMPLEMENTED, f"Unknown Content-Encoding {encoding}", "NOT_IMPLEMENTED")
    return _all(frames, encoding, pieces, size)


def _all(frames: _Frames, encoding: str, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), size):
            try:
                data = frames.decode(piece[start : start + size])
            except (zlib.error, zstandard.ZstdError, RuntimeError) as error:  # lz4 has no class of its own
                message = f"The body is not {encoding}: {error}"
                raise QueryError(CANNOT_DECOMPRESS, message, "CANNOT_DECOMPRESS") from None
            if data:
                yield data
    if frames.is_cut:
        message = f"The body ends within its {encoding} encoding: the rest of it is missing"
        raise QueryError(CANNOT_READ_ALL_DATA, message, "CANNOT_READ_ALL_DATA")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Frames:
    """Frames (lz4, zstd) or members (gzip) one after the other, as clients send them: one for each block inserted.

    A decompressor ends with its first frame and takes no notice of what follows.
    """

    def __init__(self, begin: Callable[[], _Decompressor]) -> None:
        self._begin = begin
        self._current: _Decompressor | None = None

    @property
    def is_cut(self) -> bool:
        """Whether more of a frame is to come."""
        return self._current is not None

    def decode(self, data: bytes) -> bytes:
        """Return what `data` adds."""
        found = []
        while data:
            current = self._current or self._begin()
            found.append(current.decompress(data))
            data = (current.unused_data or b"") if current.eof else b""
            self._current = None if current.eof else current
        return b"".join(found)


class Encoder:
    """Encodes a response with the first encoding of Accept-Encoding that is known; `name` is None for none."""

    def __init__(self, accept: str) -> None:
        self.name: str | None = None
        self._begin = b""
        self._encode: Callable[[bytes], bytes] = bytes
        self._flush: Callable[[], bytes] = bytes
        for wanted in (part.split(";")[0].strip().lower() for part in accept.split(",")):
            if self._use(wanted):
                self.name = wanted
                return

    def encode(self, data: bytes) -> bytes:
        """Return what can be sent of `data` by now."""
        begin, self._begin = self._begin, b""
        return begin + self._encode(data)

    def finish(self) -> bytes:
        """Return the rest."""
        begin, self._begin = self._begin, b""
        return begin + self._flush()

    def _use(self, name: str) -> bool:
        match name:
            case "lz4":
                lz4_frame = lz4.frame.LZ4FrameCompressor()
                self._begin = lz4_frame.begin()
                self._encode, self._flush = lz4_frame.compress, lz4_frame.flush
            case "zstd":
                zstd_frame = zstandard.ZstdCompressor(1).compressobj()
                self._encode, self._flush = zstd_frame.compress, zstd_frame.flush
            case "gzip":
                gzip_stream = zlib.compressobj(1, wbits=31)
                self._encode, self._flush = gzip_stream.compress, gzip_stream.flush
            case _:
                return False
        return True
