"""Records of robot topics as claims: these events say that they belong to that episode.

The audit has its own fold, which knows nothing of episodes that open and close. A batch of steps is decoded as one
block, about 1 µs a record; whatever is not such a batch is read record by record, about 10 µs.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.audit.buried import Owner, Place
from consumers.avro_block import read_block
from infra.decoder import SchemaLookup
from infra.kafka import Message
from schemas import codec
from schemas.codec import FRAME_BYTES
from schemas.errors import SchemaError, UndecodableEvent
from schemas.events import Step
from schemas.topics import TOPICS

Integers = npt.NDArray[np.int64]

_IDENTITY = ("episode_id", "robot_id", "boot_epoch", "sequence")


@dataclass(frozen=True, slots=True)
class Claim:
    """Events of one episode in one partition: int64 sequences and offsets, one of each for every event."""

    place: Place
    owner: Owner
    sequences: Integers
    offsets: Integers


@dataclass(frozen=True, slots=True)
class Claims:
    """What a batch of records says; `nameless` are the offsets of those that do not say whose they are."""

    place: Place
    claims: list[Claim]
    nameless: list[int]


def claims_of(place: Place, records: Sequence[tuple[int, bytes | None]], schema_of: SchemaLookup) -> Claims:
    """Claims of records of one robot topic's partition, given as offset and value.

    Raises:
        RegistryUnavailable: a schema could not be looked up.
    """
    record = str(TOPICS[place[0]].event)
    if record == Step.record and (claims := _claims_of_block(place, records, schema_of)) is not None:
        return Claims(place, claims, [])
    found: dict[Owner, list[tuple[int, int]]] = defaultdict(list)
    nameless = []
    for offset, value in records:
        try:
            episode_id, robot_id, boot_epoch, sequence = _identity(value, record, schema_of)
        except SchemaError:
            nameless.append(offset)
        else:
            found[(episode_id, robot_id, boot_epoch)].append((sequence, offset))
    claims = []
    for owner, pairs in found.items():
        columns = np.array(pairs, np.int64)
        claims.append(Claim(place, owner, columns[:, 0], columns[:, 1]))
    return Claims(place, claims, nameless)


def _claims_of_block(
    place: Place, records: Sequence[tuple[int, bytes | None]], schema_of: SchemaLookup
) -> list[Claim] | None:
    """Claims of steps that are all good and of one schema; None if they are not."""
    values = [value for _, value in records if value]
    if len(values) < len(records) or not values:
        return None
    head = values[0][:FRAME_BYTES]
    if not all(value.startswith(head) for value in values):
        return None
    try:
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        frame = read_block(values, sizes, schema_of(codec.unframe(head)[0], Step.record))
    except SchemaError:
        return None
    if frame is None:
        return None
    named = frame.select(*_IDENTITY, pl.Series("offset", [offset for offset, _ in records], pl.Int64))
    owners = named.group_by(_IDENTITY[:3], maintain_order=True).agg("sequence", "offset")
    return [
        Claim(place, owner, np.array(sequences, np.int64), np.array(offsets, np.int64))
        for *owner_parts, sequences, offsets in owners.iter_rows()
        for owner in [(str(owner_parts[0]), str(owner_parts[1]), int(owner_parts[2]))]
    ]


def offset_and_value(message: Message) -> tuple[int, bytes | None]:
    """A consumed record as `claims_of` takes it."""
    value = message.value()
    return int(message.offset() or 0), value if isinstance(value, bytes) else None


def _identity(value: bytes | None, record: str, schema_of: SchemaLookup) -> tuple[str, str, int, int]:
    schema_id, body = codec.unframe(value)
    writer = schema_of(schema_id, record)
    source = io.BytesIO(body)
    try:
        # Whole, with the writer's schema: fastavro does not notice that a field it skips is cut off.
        datum: Any = fastavro.schemaless_reader(source, writer.parsed, None)
        found = tuple(datum[name] for name in _IDENTITY)
    except Exception as error:
        raise UndecodableEvent(f"not a {record}: {error!r}") from error
    if source.tell() != len(body):
        raise UndecodableEvent(f"{len(body) - source.tell()} bytes too many for a {record}")
    return found
