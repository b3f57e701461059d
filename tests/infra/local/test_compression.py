"""Bodies of requests come in pieces, and in several compressed frames."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from infra.local.clickhouse.compression import decoded
from infra.local.clickhouse.errors import CANNOT_DECOMPRESS, CANNOT_READ_ALL_DATA, QueryError

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
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    assert b"".join(decoded(encoding, pieces)) == b"".join(BLOCKS)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("lz4", lz4.frame.compress),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
@given(blocks=st.lists(st.binary(max_size=300), min_size=1, max_size=3), data=st.data())
def test_a_body_is_whole_or_an_error_wherever_it_is_cut(
    encoding: str, compress: Callable[[bytes], bytes], blocks: list[bytes], data: st.DataObject
) -> None:
    frames = [compress(block) for block in blocks]
    ends = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    body = b"".join(frames)
    cut = data.draw(st.integers(0, len(body)))
    if cut in ends:
        assert b"".join(decoded(encoding, [body[:cut]])) == b"".join(blocks[: ends.index(cut)])
    else:
        with pytest.raises(QueryError) as error:
            list(decoded(encoding, [body[:cut]]))
        assert error.value.code == CANNOT_READ_ALL_DATA


@pytest.mark.parametrize("encoding", ["lz4", "gzip", "deflate", "zstd"])
def test_what_is_no_such_encoding_is_an_error(encoding: str) -> None:
    with pytest.raises(QueryError) as error:
        list(decoded(encoding, [b"SELECT 1 -- nothing is encoded here"]))
    assert error.value.code == CANNOT_DECOMPRESS
