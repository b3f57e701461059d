"""Records to columns: the steps of a batch are decoded at once, checked at once, and handed out by episode.

Avro bodies of one schema, joined, are a block of an Avro container file, which polars reads ten times faster than
one record at a time. A body that breaks its batch is looked for record by record, and only then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa

from consumers.avro_block import read_block
from consumers.dead_letters import DeadLetter, Reason
from consumers.intake import Intake, StepRecords
from consumers.records import Origin
from consumers.soundness import content_problem, identity_problem, is_uuid7, sequence_problem
from consumers.steps import Steps, as_event
from consumers.vectors import Bools, Ints, Vectors
from infra.decoder import E, SchemaLookup, event_in
from schemas import codec
from schemas.codec import FRAME_BYTES, AvroSchema
from schemas.errors import SchemaError, UnknownSchema
from schemas.events import (
    EpisodeBoundary,
    EpisodeLabelled,
    Intervention,
    RobotEvent,
    Step,
)
from schemas.topics import EPISODE_LABELS, ROBOT_EPISODES, ROBOT_INTERVENTIONS, ROBOT_STEPS

_INLINE_BYTES = 12
_NEEDED = set(Step.model_fields) - {"proposed_action"}
_LATEST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_EVENT_OF: dict[str, type[RobotEvent]] = {ROBOT_INTERVENTIONS: Intervention, ROBOT_EPISODES: EpisodeBoundary}


@dataclass(slots=True)
class StepGroup:
    """Steps of one episode from one batch, in Kafka's order.

    `ordered`: sequences grow strictly. `records` is what `steps.row` points into.
    """

    episode_id: str
    robot_id: str
    boot_epoch: int
    steps: Steps
    ordered: bool
    records: StepRecords

    def origin(self, at: int) -> Origin:
        """Where step number `at` of the group lies."""
        return self.records.origin(int(self.steps.row[at]))

    def event(self, at: int) -> Step:
        """Step number `at` of the group as an event."""
        return as_event(
            self.steps.values(at), episode_id=self.episode_id, robot_id=self.robot_id, boot_epoch=self.boot_epoch
        )

    def narrowed(self, steps: Steps) -> StepGroup:
        """The same group with fewer steps."""
        return StepGroup(self.episode_id, self.robot_id, self.boot_epoch, steps, False, self.records)


@dataclass
class Decoded:
    """What a batch held of one partition number. `last` is the last offset and append time of each topic read."""

    groups: list[StepGroup] = field(default_factory=list)
    events: list[tuple[RobotEvent, Origin]] = field(default_factory=list)
    labels: list[tuple[EpisodeLabelled, Origin]] = field(default_factory=list)
    rejected: list[tuple[DeadLetter, RobotEvent | None]] = field(default_factory=list)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)


Batch = dict[int, Decoded]
"""What a batch held, by partition number."""


def decode(intake: Intake, schema_of: SchemaLookup) -> Batch:
    """Decode what was consumed of the topics that make episodes.

    Raises:
        RegistryUnavailable: a schema could not be looked up; nothing was decoded.
    """
    out: Batch = defaultdict(Decoded)
    if intake.steps:
        _decode_steps(out, StepRecords.joined(intake.steps), schema_of)
    for place in intake.others:
        if place.topic == EPISODE_LABELS:
            _decode_label(out, place, schema_of)
        else:
            _decode_event(out, place, schema_of)
    return out


def _read(part: Decoded, place: Origin, event_type: type[E], schema_of: SchemaLookup) -> E | None:
    """The event in a record; None, and a rejected record more, if it holds none."""
    part.last[place.topic] = (place.offset, place.appended_ms)
    try:
        return event_in(place.value, event_type, schema_of)
    except SchemaError as error:
        part.rejected.append((_undecodable(place, error), None))
        return None


def _decode_event(out: Batch, place: Origin, schema_of: SchemaLookup) -> None:
    part = out[place.partition]
    event = _read(part, place, _EVENT_OF[place.topic], schema_of)
    if event is None:
        return
    problem = identity_problem(event.robot_id, event.episode_id, place.key) or sequence_problem(event.sequence)
    if problem is not None:
        part.rejected.append((DeadLetter(place, *problem), None))
    elif problem := content_problem(event):
        part.rejected.append((DeadLetter(place, *problem), event))
    else:
        part.events.append((event, place))


def _decode_label(out: Batch, place: Origin, schema_of: SchemaLookup) -> None:
    part = out[place.partition]
    event = _read(part, place, EpisodeLabelled, schema_of)
    if event is None:
        return
    problem = identity_problem(event.robot_id, event.episode_id, place.key)
    if problem is None and not is_uuid7(event.label.label_id):
        problem = Reason.BAD_ID, f"label_id {event.label.label_id!r} is not a UUIDv7"
    if problem is None and not 1970 <= event.label.labelled_at.year < 2200:
        problem = Reason.BAD_TIME, f"labelled_at is {event.label.labelled_at}, not between 1970 and 2200"
    if problem is None:
        part.labels.append((event, place))
    else:
        part.rejected.append((DeadLetter(place, *problem), None))


def _decode_steps(out: Batch, records: StepRecords, schema_of: SchemaLookup) -> None:
    for number in np.unique(records.partitions).tolist():
        last = int(np.flatnonzero(records.partitions == number)[-1])
        out[number].last[ROBOT_STEPS] = (int(records.offsets[last]), int(records.appended_ms[last]))
    if (frame := _all_at_once(records, schema_of)) is not None:
        _hand_out(out, records, frame, _steps_of(frame, np.arange(len(records))))
        return
    values = records.values()
    for schema, rows in _by_schema(out, records, values, schema_of):
        frame = _as_block([values[row] or b"" for row in rows.tolist()], records.sizes[rows], schema)
        if frame is None:
            _one_by_one(out, records, values, rows, schema)
        else:
            _hand_out(out, records, frame, _steps_of(frame, rows))


def _all_at_once(records: StepRecords, schema_of: SchemaLookup) -> pl.DataFrame | None:
    """The usual case: every record names the same schema, and is one of its records. Else None."""
    try:
        schema_id, _ = codec.unframe(records.value(0))
        return _as_block(records.pieces, records.sizes, schema_of(schema_id, Step.record))
    except SchemaError:
        return None


def _as_block(values: Sequence[bytes], sizes: Ints, schema: AvroSchema) -> pl.DataFrame | None:
    frame = read_block(values, sizes, schema)
    return frame if frame is not None and set(frame.columns) >= _NEEDED else None


def _by_schema(
    out: Batch, records: StepRecords, values: list[bytes | None], schema_of: SchemaLookup
) -> list[tuple[AvroSchema, Ints]]:
    """Rows by the schema that they name; records that name none that is a step's are rejected."""
    heads: dict[bytes | None, list[int]] = {}
    for row, value in enumerate(values):
        heads.setdefault(value[:FRAME_BYTES] if value else None, []).append(row)
    found: dict[int, tuple[AvroSchema, list[int]]] = {}
    for head, rows in heads.items():
        try:
            schema_id, _ = codec.unframe(head)
            found.setdefault(schema_id, (schema_of(schema_id, Step.record), []))[1].extend(rows)
        except SchemaError as error:
            for row in rows:
                place = records.origin(row)
                out[place.partition].rejected.append((_undecodable(place, error), None))
    return [(schema, np.array(rows, np.int64)) for schema, rows in found.values()]


def _one_by_one(
    out: Batch, records: StepRecords, values: list[bytes | None], rows: Ints, schema: AvroSchema
) -> None:
    """The batch does not decode as a block: find the records that are to blame, and keep the others."""
    good: list[tuple[int, Step]] = []
    for row in rows.tolist():
        value = values[row] or b""
        try:
            good.append((row, codec.decode(Step, value[FRAME_BYTES:], schema)))
        except SchemaError as error:
            # What a block can hold and an event cannot, say a time after year 9999, is judged as in a block:
            # the fate of a record does not depend on its neighbours.
            alone = _as_block([value], np.array([len(value)]), schema) if value else None
            if alone is not None:
                _hand_out(out, records, alone, _steps_of(alone, np.array([row])))
                continue
            place = records.origin(row)
            out[place.partition].rejected.append((_undecodable(place, error), None))
    if good:
        events = [step for _, step in good]
        frame = pl.DataFrame(
            {
                "episode_id": [e.episode_id for e in events],
                "robot_id": [e.robot_id for e in events],
                "boot_epoch": [e.boot_epoch for e in events],
            }
        )
        _hand_out(out, records, frame, Steps.from_events(events, [row for row, _ in good]))


def _steps_of(frame: pl.DataFrame, rows: Ints) -> Steps:
    """Columns as today's Step has them, whatever version wrote them."""
    proposed = frame["proposed_action"] if "proposed_action" in frame.columns else None
    numbers = {name: frame[name].to_numpy() for name in ("sequence", "index", "policy_version", "reward")}
    numbers["captured_at"] = frame["captured_at"].to_physical().to_numpy()
    numbers["human"] = (frame["actor"].cast(pl.String) == "HUMAN").to_numpy()
    return Steps.of(
        {**numbers, "row": rows},
        _vectors(frame["state"]),
        _vectors(frame["action"]),
        Vectors.absent(len(frame)) if proposed is None else _vectors(proposed),
    )


def _vectors(column: pl.Series) -> Vectors:
    if column.null_count() == len(column):
        return Vectors.absent(len(column))
    if column.null_count() == 0 and (run := _equally_long(column)) is not None:
        return run
    present = None if column.null_count() == 0 else column.is_not_null().to_numpy()
    array = column.to_arrow()
    array = array.combine_chunks() if hasattr(array, "combine_chunks") else array
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    return Vectors.of(np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), bounds, present)


def _equally_long(column: pl.Series) -> Vectors | None:
    """Vectors as they lie in memory, uncopied, if they are equally long and lie one after the other; else None.

    Values of more than 12 bytes lie in a buffer beside views of 16 bytes each: length, the first four bytes,
    number of the buffer, offset in it (Arrow columnar format, variable-size binary view layout).
    """
    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    if isinstance(array, pa.ChunkedArray) or array.type != pa.binary_view() or len(array.buffers()) != 3:
        return None
    _, views, data = array.buffers()
    words = np.frombuffer(views, np.int32, len(array) * 4, array.offset * 16).reshape(-1, 4)
    size, first = int(words[0, 0]), int(words[0, 3])
    begins = np.arange(len(array), dtype=np.int64) * size + first
    if size <= _INLINE_BYTES or (words[:, 0] != size).any() or (words[:, 3] != begins).any():
        return None
    return Vectors(np.frombuffer(data, np.uint8, len(array) * size, first), size, len(array))


def _hand_out(out: Batch, records: StepRecords, frame: pl.DataFrame, steps: Steps) -> None:
    """Take out what is unusable, then sort by partition number and episode, keeping Kafka's order within."""
    sound = _sound(records, frame, steps)
    if not sound.all():
        _reject(out, records, frame, steps, np.flatnonzero(~sound))
        kept = np.flatnonzero(sound)
        frame, steps = frame[kept], steps.take(kept)
        if not len(steps):
            return
    episodes, robots = (
        frame[name].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
        for name in ("episode_id", "robot_id")
    )
    numbers = records.partitions[steps.row]
    order = np.argsort(episodes * (int(numbers.max()) + 1) + numbers, kind="stable")
    steps = steps.take(order)
    groups = [column[order] for column in (episodes, numbers, robots, frame["boot_epoch"].to_numpy())]
    begins = np.ones(len(steps), np.bool_)
    begins[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in groups])
    falls = np.flatnonzero((np.diff(steps.sequence, prepend=-1) <= 0) & ~begins)
    lows = np.flatnonzero(begins)
    highs = np.append(lows[1:], len(steps))
    disordered = set((np.searchsorted(lows, falls, side="right") - 1).tolist())
    names = frame.select("episode_id", "robot_id", "boot_epoch")[order[lows]]
    identities = zip(names["episode_id"], names["robot_id"], names["boot_epoch"], strict=True)
    for at, (number, identity, low, high) in enumerate(
        zip(groups[1][lows].tolist(), identities, lows.tolist(), highs.tolist(), strict=True)
    ):
        group = StepGroup(*identity, steps.slice(low, high), at not in disordered, records)
        out[number].groups.append(group)


def _sound(records: StepRecords, frame: pl.DataFrame, steps: Steps) -> Bools:
    """Whether each row's key, episode id and numbers are right; usually all, which is seen at a glance."""
    ours = records.keys if len(steps) == len(records) else [records.keys[row] for row in steps.row.tolist()]
    keys = pl.Series(ours, dtype=pl.Binary)
    sound: Bools = (frame["robot_id"].cast(pl.Binary) == keys).fill_null(value=False).to_numpy()
    sound = sound & np.isfinite(steps.reward) & _in_range(steps.captured_at) & (steps.sequence >= 0)
    bad_ids = [value for value in frame["episode_id"].unique() if not is_uuid7(value)]
    if bad_ids:
        sound &= ~frame["episode_id"].is_in(bad_ids).to_numpy()
    return sound & steps.state.finite() & steps.action.finite() & steps.proposed_action.finite()


def _in_range(captured_at: Ints) -> Bools:
    """Whether times can be kept everywhere: ClickHouse ends in 2299, Python's datetime in 9999."""
    good: Bools = (captured_at >= 0) & (captured_at < _LATEST)
    return good


def _reject(out: Batch, records: StepRecords, frame: pl.DataFrame, steps: Steps, at: Ints) -> None:
    for number in at.tolist():
        place = records.origin(int(steps.row[number]))
        episode_id, robot_id, boot_epoch = frame.select("episode_id", "robot_id", "boot_epoch").row(number)
        problem = identity_problem(robot_id, episode_id, place.key)
        problem = problem or sequence_problem(int(steps.sequence[number]))
        event = None
        if problem is None:
            values = steps.values(number)
            problem = Reason.NOT_FINITE, "reward, state or action is not finite"
            if not _in_range(steps.captured_at[number : number + 1]).all():
                problem = Reason.BAD_TIME, f"captured_at is {values['captured_at']} µs, not between 1970 and 2200"
                values["captured_at"] = 0  # what counts now is whose sequence it was
            event = as_event(values, episode_id=episode_id, robot_id=robot_id, boot_epoch=boot_epoch)
        out[place.partition].rejected.append((DeadLetter(place, *problem), event))


def _undecodable(place: Origin, error: SchemaError) -> DeadLetter:
    reason = Reason.UNKNOWN_SCHEMA if isinstance(error, UnknownSchema) else Reason.UNDECODABLE
    return DeadLetter(place, reason, str(error))
