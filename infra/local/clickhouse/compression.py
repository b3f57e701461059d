"""Content encodings of requests and responses, streamed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame
import zstandard

from infra.local.clickhouse.errors import NOT_IMPLEMENTED, QueryError


def decoder(encoding: str) -> Callable[[bytes], bytes]:
    """Return a function that decodes the chunks of a request body.

    Raises:
        QueryError: the encoding is not known.
    """
    decode: Callable[[bytes], bytes]
    match encoding.strip().lower():
        case "" | "identity":
            return bytes
        case "lz4":
            decode = _Members(lz4.frame.LZ4FrameDecompressor)
        case "zstd":
            decode = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
        case "gzip":
            decode = _Members(lambda: zlib.decompressobj(31))
        case "deflate":
            decode = zlib.decompressobj(15).decompress
        case _:
            raise QueryError(NOT_IMPLEMENTED, f"Unknown Content-Encoding {encoding}", "NOT_IMPLEMENTED")
    return decode


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Members:
    """Frames (lz4) or members (gzip) one after the other, as clients send them: one for each block of an INSERT.

    A decompressor ends with its first frame and takes no notice of what follows.
    """

    def __init__(self, begin: Callable[[], _Decompressor]) -> None:
        self._begin = begin
        self._current = begin()

    def __call__(self, data: bytes) -> bytes:
        decoded = []
        while data:
            if self._current.eof:
                self._current = self._begin()
            decoded.append(self._current.decompress(data))
            data = (self._current.unused_data or b"") if self._current.eof else b""
        return b"".join(decoded)


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
