"""Bodies of requests come in pieces, and in several compressed frames."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard

from infra.local.clickhouse.compression import decoder

BLOCKS = [bytes([number]) * 5_000 for number in range(7)]


@pytest.mark.parametrize("piece", [1, 7, 100, 1_000_000])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("lz4", lz4.frame.compress), ("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_a_frame_for_each_block_is_decoded_to_all_blocks(
    encoding: str, compress: Callable[[bytes], bytes], piece: int
) -> None:
    body = b"".join(compress(block) for block in BLOCKS)
    decode = decoder(encoding)
    decoded = b"".join(decode(body[at : at + piece]) for at in range(0, len(body), piece))
    assert decoded == b"".join(BLOCKS)
