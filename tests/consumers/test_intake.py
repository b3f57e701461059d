"""Records taken over as columns are the records that came, in whichever pieces they are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.intake import Intake, StepRecords
from consumers.records import Origin
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.robots import Consumed

bodies = st.one_of(st.none(), st.binary(max_size=6))
places = st.lists(
    st.builds(
        Origin,
        topic=st.sampled_from([ROBOT_STEPS, ROBOT_STEPS, ROBOT_EPISODES]),
        partition=st.integers(0, 3),
        offset=st.integers(0, 10**12),
        appended_ms=st.integers(0, 10**13),
        key=bodies,
        value=bodies,
    ),
    max_size=8,
)


def taken(batches: list[list[Origin]]) -> Intake:
    found = Intake()
    for batch in batches:
        found.add([Consumed(place) for place in batch])
    return found


def steps_in(intake: Intake) -> list[Origin]:
    if not intake.steps:
        return []
    records = StepRecords.joined(intake.steps)
    return [records.origin(row) for row in range(len(records))]


@given(st.lists(places, max_size=4))
def test_what_was_taken_in_comes_out_again_byte_for_byte(batches: list[list[Origin]]) -> None:
    intake, every = taken(batches), [place for batch in batches for place in batch]
    assert steps_in(intake) == [place for place in every if place.topic == ROBOT_STEPS]
    assert intake.others == [place for place in every if place.topic != ROBOT_STEPS]
    assert len(intake) == len(every)


@given(st.lists(places, max_size=4), st.integers(0, 3))
def test_a_partition_number_that_went_away_takes_its_records_along(
    batches: list[list[Origin]], number: int
) -> None:
    intake = taken(batches)
    intake.drop(number)
    kept = [place for batch in batches for place in batch if place.partition != number]
    assert steps_in(intake) == [place for place in kept if place.topic == ROBOT_STEPS]
    assert intake.others == [place for place in kept if place.topic != ROBOT_STEPS]
    assert intake.nbytes == sum(len(place.value or b"") for place in kept), (
        "an empty intake must not count as full"
    )


@given(places, st.data())
def test_some_records_are_taken_in_any_order(batch: list[Origin], data: st.DataObject) -> None:
    intake = taken([batch])
    every = steps_in(intake)
    if not every:
        return
    rows = data.draw(st.lists(st.integers(0, len(every) - 1), max_size=6))
    some = StepRecords.joined(intake.steps).take(np.array(rows, np.int64))
    assert [some.origin(at) for at in range(len(some))] == [every[row] for row in rows]
    assert some.values() == [every[row].value for row in rows]
