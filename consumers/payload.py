"""Payloads: an episode's steps as one Parquet file, whose metadata repeats everything else about it.

The bytes depend on the content, the software and its settings only, so whoever stores an episode twice stores the
same object. Columns: index int32, sequence int64, captured_at timestamp[us, UTC], actor string, policy_version
int64, state and action fixed_size_list<float32>, proposed_action the same or null, reward float32; by index. And
one for each camera (`consumers.footage`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from consumers import footage
from consumers.episode import OpenEpisode
from consumers.facts import EpisodeFacts, facts_of
from consumers.ranges import RangeSet
from consumers.steps import VECTORS, Steps
from consumers.vectors import Vectors
from infra.object_store import sha256_hex
from schemas.events import ClosedBy

METADATA_KEY = b"sop.episode"

_ACTORS = pa.array(["POLICY", "HUMAN"])


class PayloadUnreadable(Exception):
    """The bytes are no payload of ours."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file ready to be stored under `key`."""

    key: str
    data: bytes
    sha256: str
    facts: EpisodeFacts


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """A payload read back: its facts, and its rows as `Decoded.steps` has them."""

    facts: EpisodeFacts
    steps: Steps

    def accounted(self) -> RangeSet:
        """Sequences that it lists, as held or as rejected."""
        return RangeSet.of((*self.facts.sequences, *self.facts.rejected))


def ordered_steps(parts: list[Steps]) -> Steps:
    """All steps of an episode in the payload's order: by index, then by sequence."""
    steps = Steps.joined(parts)
    if len(steps) < 2 or bool((np.diff(steps.index) > 0).all()):
        return steps
    return steps.take(np.lexsort((steps.sequence, steps.index)))


@dataclass(frozen=True, slots=True)
class Draft:
    """What a file will hold: one row for each step, and the facts."""

    table: pa.Table
    facts: EpisodeFacts


def build_payload(episode: OpenEpisode, closed_by: ClosedBy, revision: int) -> Payload:
    """The file of an episode whose start was seen.

    Raises:
        ValueError: the start was not seen.
    """
    return written(draft(episode, closed_by, revision))


def draft(episode: OpenEpisode, closed_by: ClosedBy, revision: int) -> Draft:
    """What the file of an episode will hold.

    Raises:
        ValueError: the start was not seen.
        SpillUnusable: what the episode has on disk cannot be read.
    """
    steps = ordered_steps(episode.steps.steps())
    facts = facts_of(episode, steps, closed_by, revision)
    return Draft(_table(steps, facts), facts)


def written(plan: Draft) -> Payload:
    """The file that a draft describes."""
    facts = plan.facts
    sink = pa.BufferOutputStream()
    pq.write_table(
        plan.table,
        sink,
        compression="lz4",  # floats hardly shrink: zstd saves 12 % of the bytes and costs 70 % more time
        use_dictionary=False,  # vectors hardly repeat; the columns that do are small
        write_statistics=False,
    )
    data = sink.getvalue().to_pybytes()
    sha256 = sha256_hex(data)
    return Payload(f"{folder(facts.episode_id)}{facts.revision}-{sha256}.parquet", data, sha256, facts)


def read_payload(data: bytes) -> StoredPayload:
    """A payload read back.

    Raises:
        PayloadUnreadable: the bytes are no payload of ours.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
        facts = EpisodeFacts.model_validate_json((table.schema.metadata or {})[METADATA_KEY])
    except (pa.ArrowInvalid, OSError, KeyError, ValidationError) as error:
        raise PayloadUnreadable(f"not an episode's payload: {error!r}") from error
    numbers = ("sequence", "index", "policy_version", "reward")
    columns: dict[str, Any] = {name: table.column(name).to_numpy() for name in numbers}
    columns["captured_at"] = table.column("captured_at").cast(pa.int64()).to_numpy()
    columns["human"] = pc.equal(table.column("actor"), "HUMAN").to_numpy()
    columns["row"] = np.arange(table.num_rows)
    vectors = [Vectors.from_values(_as_bytes(table.column(name))) for name in VECTORS]
    return StoredPayload(facts, Steps.of(columns, *vectors))


def read_facts(data: bytes) -> EpisodeFacts:
    """The facts of a payload alone.

    Raises:
        PayloadUnreadable: the bytes are no payload of ours.
    """
    try:
        return EpisodeFacts.model_validate_json(
            (pq.read_schema(pa.BufferReader(data)).metadata or {})[METADATA_KEY]
        )
    except (pa.ArrowInvalid, OSError, KeyError, ValidationError) as error:
        raise PayloadUnreadable(f"not an episode's payload: {error!r}") from error


def folder(episode_id: str) -> str:
    """Where the revisions of an episode lie."""
    return f"episodes/{episode_id}/"


def _table(steps: Steps, facts: EpisodeFacts) -> pa.Table:
    sizes = {feature.name: feature.size for feature in facts.features}
    schema = _schema(sizes["state"], sizes["action"])
    columns = [
        _numbers(steps.index, pa.int32()),
        _numbers(steps.sequence, pa.int64()),
        _numbers(steps.captured_at, pa.timestamp("us", tz="UTC")),
        _ACTORS.take(_numbers(steps.human.view(np.int8), pa.int8())),
        _numbers(steps.policy_version, pa.int64()),
        _lists(steps.state, sizes["state"]),
        _lists(steps.action, sizes["action"]),
        _lists(steps.proposed_action, sizes["action"]),
        _numbers(steps.reward, pa.float32()),
    ]
    for field, column in footage.columns(facts.features, facts.boundaries, steps.index):
        schema, columns = schema.append(field), [*columns, column]
    return pa.Table.from_arrays(columns, schema=schema.with_metadata({METADATA_KEY: facts.model_dump_json()}))


@functools.cache
def _schema(state: int, action: int) -> pa.Schema:
    """Columns of an episode whose state and action have so many elements; only a proposed action may be null."""
    columns = {
        "index": pa.int32(),
        "sequence": pa.int64(),
        "captured_at": pa.timestamp("us", tz="UTC"),
        "actor": pa.string(),
        "policy_version": pa.int64(),
        "state": _vector(state),
        "action": _vector(action),
        "proposed_action": _vector(action),
        "reward": pa.float32(),
    }
    return pa.schema([pa.field(name, kind, nullable=name == "proposed_action") for name, kind in columns.items()])


@functools.cache
def _vector(size: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), size)


def _numbers(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Numbers as they lie in memory; `pa.array` would load pandas, if there is one, to ask if they are its."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _lists(vectors: Vectors, size: int) -> pa.Array:
    """Little-endian float32 bytes as fixed-size lists; null stays null."""
    present = vectors.present
    if present is None:
        return pa.FixedSizeListArray.from_arrays(_numbers(vectors.floats(), pa.float32()), type=_vector(size))
    if not present.any():
        return pa.nulls(len(vectors), _vector(size))
    matrix = np.zeros((len(vectors), size), "<f4")
    matrix[present] = vectors.floats().reshape(-1, size)
    absent = pa.array((~present).tolist(), pa.bool_())
    return pa.FixedSizeListArray.from_arrays(
        _numbers(matrix.reshape(-1), pa.float32()), type=_vector(size), mask=absent
    )


def _as_bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    return [None if value is None else np.asarray(value, "<f4").tobytes() for value in column.to_pylist()]
