"""Batches decode as columns; what is broken is found, named, and does not take others along."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.avro_block import read_block
from consumers.dead_letters import Reason
from consumers.decode import Decoded
from consumers.records import Origin
from consumers.soundness import MAX_ELEMENTS
from infra.errors import RegistryUnavailable
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UnknownSchema
from schemas.events import Feature, Step
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.robots import (
    ACTION,
    FEATURES,
    STATE,
    Robot,
    decoded,
    frame,
    origins,
    schema_of,
    uuid7,
    vector,
)


def steps_of(count: int) -> list[Step]:
    robot, episode = Robot(), uuid7()
    return [robot.step(episode, index) for index in range(count)]


def steps_in(batch: Decoded) -> list[Step]:
    return [group.event(at) for group in batch.groups for at in range(len(group.steps))]


def reasons(places: list[Origin]) -> list[Reason]:
    return [letter.reason for letter, _ in decoded(places).rejected]


def test_a_batch_of_steps_decodes_to_the_events_that_were_sent() -> None:
    events = Robot().episode(5, intervene_at=2)
    batch = decoded(origins(events))
    assert steps_in(batch) == [event for event in events if isinstance(event, Step)]
    assert [event for event, _ in batch.events] == [event for event in events if not isinstance(event, Step)]
    [group] = batch.groups
    assert [group.origin(at).offset for at in range(5)] == list(range(5))
    assert batch.rejected == []


broken = st.sampled_from(["cut", "grown", "empty", "none", "magic", "noise"])


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.integers(0, 11), broken, max_size=5), st.randoms(use_true_random=False))
def test_broken_bodies_are_found_and_the_others_stay(faults: dict[int, str], random: Any) -> None:
    events = steps_of(12)
    places = origins(events)
    for at, fault in faults.items():
        value = places[at].value or b""
        changed = {
            "cut": value[:-3],
            "grown": value + b"\0\0",
            "empty": b"",
            "none": None,
            "magic": b"\1" + value[1:],
            "noise": value[:5] + random.randbytes(3),
        }[fault]
        places[at] = dataclasses.replace(places[at], value=changed)
    batch = decoded(places)
    assert [step.sequence for step in steps_in(batch)] == [
        event.sequence for at, event in enumerate(events) if at not in faults
    ]
    assert sorted(letter.origin.offset for letter, _ in batch.rejected) == sorted(faults)
    assert {letter.reason for letter, _ in batch.rejected} <= {Reason.UNDECODABLE}


def test_a_short_and_a_long_body_that_fit_together_are_not_taken_for_two_good_ones() -> None:
    places = origins(steps_of(2))
    first, second = (place.value or b"" for place in places)
    places[0] = dataclasses.replace(places[0], value=first[:-4])
    places[1] = dataclasses.replace(places[1], value=second[:5] + first[-4:] + second[5:])
    batch = decoded(places)
    assert batch.groups == []
    assert [letter.reason for letter, _ in batch.rejected] == [Reason.UNDECODABLE] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reward": float("nan")}, Reason.NOT_FINITE),
        ({"state": vector(STATE, float("inf"))}, Reason.NOT_FINITE),
        ({"proposed_action": vector(ACTION, float("nan"))}, Reason.NOT_FINITE),
        ({"captured_at": datetime(2300, 1, 1, tzinfo=UTC)}, Reason.BAD_TIME),
        ({"captured_at": datetime(1, 1, 2, tzinfo=UTC)}, Reason.BAD_TIME),
        ({"episode_id": "not-a-uuid"}, Reason.BAD_ID),
    ],
)
def test_unusable_numbers_and_ids_are_rejected_alone(change: dict[str, Any], reason: Reason) -> None:
    events = steps_of(3)
    events[1] = events[1].model_copy(update=change)
    batch = decoded(origins(events))
    assert [step.index for step in steps_in(batch)] == [0, 2]
    [(letter, event)] = batch.rejected
    assert letter.reason is reason
    assert letter.origin.offset == 1
    assert (event is not None) == (reason is not Reason.BAD_ID), (
        "only a step that is its robot's fills its sequence"
    )


def test_a_key_that_is_not_the_robot_is_rejected_on_every_topic() -> None:
    places = [dataclasses.replace(place, key=b"robot-2") for place in origins(Robot().episode(2, intervene_at=1))]
    assert reasons(places) == [Reason.FOREIGN_KEY] * len(places)
    assert reasons([dataclasses.replace(places[0], key=None)]) == [Reason.FOREIGN_KEY]


def test_a_vector_of_odd_length_passes_here_and_is_measured_with_its_episode() -> None:
    events = steps_of(2)
    events[0] = events[0].model_copy(update={"state": b"abc"})
    assert reasons(origins(events)) == []


def test_an_unknown_schema_id_is_named() -> None:
    def nothing(schema_id: int, record: str) -> AvroSchema:
        raise UnknownSchema(f"schema id {schema_id} is not in the registry")

    [(letter, _)] = decoded(origins(steps_of(1)), nothing).rejected
    assert letter.reason is Reason.UNKNOWN_SCHEMA
    assert "schema id 1" in letter.error


def test_a_registry_that_is_away_decides_nothing() -> None:
    def away(schema_id: int, record: str) -> AvroSchema:
        raise RegistryUnavailable("down")

    with pytest.raises(RegistryUnavailable):
        decoded(origins(steps_of(1)), away)


@pytest.mark.parametrize("magic", [1, 2, 7, 128, 255])
def test_a_frame_that_begins_with_another_byte_is_rejected_though_the_rest_is_good(magic: int) -> None:
    places = origins(steps_of(3))
    places[1] = dataclasses.replace(places[1], value=bytes([magic]) + (places[1].value or b"")[1:])
    outcome = decoded(places)
    assert [(letter.reason, letter.origin.offset) for letter, _ in outcome.rejected] == [
        (Reason.UNDECODABLE, places[1].offset)
    ]


@pytest.mark.parametrize("neighbour", [None, b"", b"\0\0\0\0\1\xff"])
def test_a_time_past_what_datetimes_hold_is_rejected_and_fills_its_sequence(neighbour: bytes | None) -> None:
    places = origins(steps_of(3))
    if neighbour is not None:  # a batch with a broken record in it is read one by one; that changes nothing
        places[2] = dataclasses.replace(places[2], value=neighbour)
    step, body = steps_of(1)[0], io.BytesIO()
    plain = {**step.model_dump(), "captured_at": 2**62, "sequence": 1, "actor": "POLICY"}
    fastavro.schemaless_writer(body, codec.latest("step").parsed, plain)
    places[1] = dataclasses.replace(places[1], value=codec.frame(1, body.getvalue()))
    rejected = {letter.origin.offset: (letter, event) for letter, event in decoded(places).rejected}
    assert len(rejected) == (1 if neighbour is None else 2)
    letter, event = rejected[places[1].offset]
    assert letter.reason is Reason.BAD_TIME
    assert event is not None
    assert event.sequence == 1


@pytest.mark.parametrize(
    "features",
    [
        (),
        (Feature(name="state", shape=(3,)),),
        (Feature(name="state", shape=()), Feature(name="action", shape=(2,))),
        (Feature(name="state", shape=(0,)), Feature(name="action", shape=(2,))),
        (Feature(name="state", shape=(3,), dtype="float64"), Feature(name="action", shape=(2,))),
        (Feature(name="state", shape=(3,), names=("x",)), Feature(name="action", shape=(2,))),
        (*FEATURES, Feature(name="state", shape=(4,))),
        (*FEATURES, Feature(name="wrist", dtype="uint8", shape=(4, 4, 3)), Feature(name="wrist", shape=(1,))),
        (Feature(name="state", shape=(65_536, 65_536)), Feature(name="action", shape=(2,))),
        (Feature(name="state", shape=(3,)), Feature(name="action", shape=(MAX_ELEMENTS + 1,))),
    ],
)
def test_features_that_no_step_could_be_read_with_are_rejected(features: tuple[Feature, ...]) -> None:
    event = Robot().start(uuid7(), features=features)
    assert reasons(origins([event])) == [Reason.BAD_FEATURES]


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0, -50.0])
def test_a_start_whose_rate_is_none_is_rejected(fps: float) -> None:
    assert reasons(origins([Robot().start(uuid7(), fps=fps)])) == [Reason.NOT_FINITE]


@pytest.mark.parametrize("simulated_at", [float("nan"), float("-inf")])
def test_an_end_at_no_time_is_rejected(simulated_at: float) -> None:
    assert reasons(origins([Robot().end(uuid7(), 0, 0, simulated_at=simulated_at)])) == [Reason.NOT_FINITE]


def test_negative_sequences_are_rejected_and_are_nobodys() -> None:
    robot, episode = Robot(), uuid7()
    before = [robot.start(episode), robot.step(episode, 0), robot.end(episode, 0, 1)]
    events = [event.model_copy(update={"sequence": event.sequence - 2**63}) for event in before]
    good = robot.step(episode, 1)
    batch = decoded(origins([*events, good, robot.end(episode, -1, 1)]))
    assert [letter.reason for letter, _ in batch.rejected] == [Reason.BAD_ID] * 4
    assert sum(event is not None for _, event in batch.rejected) == 1, "its own sequence is sound, and filled"
    assert steps_in(batch) == [good]


def test_several_writer_versions_in_one_batch_decode_together() -> None:
    newer = json.loads(codec.latest("step").text)
    newer["fields"].append({"name": "battery", "type": "float", "default": 1.0})
    second = AvroSchema("step", 2, json.dumps(newer))
    events = steps_of(4)
    places = origins(events)
    for at in (1, 3):
        body = codec.encode(events[at]) + np.float32(0.5).tobytes()
        places[at] = dataclasses.replace(places[at], value=codec.frame(9, body))
    batch = decoded(places, lambda schema_id, record: second if schema_id == 9 else codec.latest(record))
    assert batch.rejected == []
    assert sorted(steps_in(batch), key=lambda step: step.sequence) == events


def read(frames: list[bytes]) -> pl.DataFrame | None:
    return read_block(frames, np.array([len(body) for body in frames], np.int64), codec.latest("step"))


@given(
    st.lists(
        st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 2**31 - 1), st.binary(max_size=200), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, max_examples=40)
def test_a_block_is_read_only_if_every_record_is_as_long_as_its_values_say(
    rows: list[tuple[int, int, bytes, bool]],
) -> None:
    robot, episode = Robot(), uuid7()
    events = [
        robot.step(
            episode, index, policy_version=version, state=state, proposed_action=state if proposed else None
        )
        for version, index, state, proposed in rows
    ]
    frames = [frame(event) for event in events]
    assert read(frames) is not None
    for at in range(len(frames)):
        grown = [*frames[:at], frames[at] + b"\0", *frames[at + 1 :]]
        assert read(grown) is None


def test_frames_of_other_topics_do_not_pass_as_steps() -> None:
    start = Robot().start(uuid7())
    place = Origin(ROBOT_STEPS, 0, 0, 0, b"robot-1", frame(start))

    def look_up(schema_id: int, record: str) -> AvroSchema:
        if (schema_id, record) == (3, "step"):
            raise UnknownSchema("schema id 3 is a episode_boundary, not a step")
        return schema_of(schema_id, record)

    assert [letter.reason for letter, _ in decoded([place], look_up).rejected] == [Reason.UNKNOWN_SCHEMA]
    assert ROBOT_EPISODES != ROBOT_STEPS
