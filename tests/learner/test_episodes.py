from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.object_store import sha256_hex
from learner.episodes import EpisodeRecord, read_payload
from learner.errors import BadPayload
from tests.learner.synthetic import ACTION, STATE, make_episode, make_payload


def announced(payload: bytes, steps: int) -> EpisodeRecord:
    update = {"payload_sha256": sha256_hex(payload), "step_count": steps}
    return make_episode(1).record.model_copy(update=update)


def vectors(rows: int, width: int, value: float = 1.0) -> np.ndarray:
    return np.full((rows, width), value, np.float32)


def test_payload_is_read_as_it_was_written() -> None:
    made = make_episode(3, steps=12, human=(4, 9))
    frames = made.episode.frames
    assert len(frames) == 12
    assert frames.states.shape == (12, STATE)
    assert frames.actions.shape == (12, ACTION)
    assert np.flatnonzero(frames.human).tolist() == [4, 5, 6, 7, 8]
    assert frames.index.tolist() == list(range(12))
    assert frames.states.dtype == frames.actions.dtype == np.float32


def test_altered_bytes_are_bad() -> None:
    made = make_episode(1)
    with pytest.raises(BadPayload, match="hashes to"):
        read_payload(made.payload + b"x", made.record)


@pytest.mark.parametrize(
    ("payload", "steps", "why"),
    [
        (b"not parquet", 1, "is no episode"),
        (make_payload(vectors(3, STATE), vectors(3, ACTION), ["HUMAN"] * 3), 4, "3 rows, announced were 4"),
        (make_payload(vectors(2, STATE), vectors(2, ACTION), ["HUMAN"] * 2, index=[1, 0]), 2, "not in order"),
        (make_payload(vectors(2, STATE, np.nan), vectors(2, ACTION), ["HUMAN"] * 2), 2, "NaN"),
    ],
)
def test_payload_that_makes_no_episode_is_bad(payload: bytes, steps: int, why: str) -> None:
    with pytest.raises(BadPayload, match=why):
        read_payload(payload, announced(payload, steps))


@pytest.mark.parametrize("column", ["index", "actor", "state", "action", "reward"])
def test_payload_with_a_hole_in_any_column_is_bad(column: str) -> None:
    table = pq.read_table(io.BytesIO(make_episode(1, steps=3).payload))
    values = table[column].combine_chunks()
    holed = pa.concat_arrays([values.slice(0, 2), pa.nulls(1, values.type)])
    out = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index(column), column, holed), out)
    with pytest.raises(BadPayload, match=f"nulls in {column}"):
        read_payload(out.getvalue(), announced(out.getvalue(), 3))


def test_payload_without_rows_is_an_episode_without_frames() -> None:
    payload = make_payload(vectors(0, STATE), vectors(0, ACTION), [], index=[])
    assert len(read_payload(payload, announced(payload, 0))) == 0
