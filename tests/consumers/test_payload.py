"""Payloads: the same content gives the same bytes, and everything can be read back."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.assembly import Assembly, Sealed
from consumers.emitted import EmittedLog
from consumers.payload import METADATA_KEY, Payload, PayloadUnreadable, build_payload, ordered_steps, read_payload
from consumers.revision import merged, reopened
from schemas.events import ClosedBy, EpisodeEnd, RobotEvent
from tests.consumers.robots import ACTION, STATE, Log, Robot, decoded


def sealed(events: list[RobotEvent], cuts: list[int] | None = None, *, timeout: bool = False) -> Sealed:
    """The episode that these events make, folded in batches that end at `cuts`."""
    log, assembly, out = Log(), Assembly(EmittedLog(), 10.0), []
    places = [log.append(event) for event in events]
    bounds = [0, *sorted(cuts or []), len(places)]
    for low, high in pairwise(bounds):
        if places[low:high]:
            out += assembly.add(decoded(places[low:high])).sealed
    if timeout:
        out += assembly.advance(10**12).sealed
    [only] = out
    return only


def all_values(payload: Payload) -> list[dict[str, object]]:
    steps = read_payload(payload.data).steps
    return [steps.values(at) for at in range(len(steps))]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 14), max_size=4), st.randoms(use_true_random=False))
def test_bytes_depend_on_the_content_and_not_on_how_it_arrived(cuts: list[int], random: object) -> None:
    events = Robot().episode(12, intervene_at=4)
    whole = sealed(events)
    in_parts = sealed(events, cuts)
    reference = build_payload(whole.episode, whole.closed_by, 1)
    assert build_payload(in_parts.episode, in_parts.closed_by, 1).data == reference.data
    assert reference.key == f"episodes/{events[0].episode_id}/1-{reference.sha256}.parquet"


def test_a_payload_read_back_and_written_again_is_the_same_file() -> None:
    done = sealed(Robot().episode(7, intervene_at=2))
    payload = build_payload(done.episode, done.closed_by, 1)
    again = build_payload(reopened(read_payload(payload.data)), payload.facts.closed_by, 1)
    assert again.data == payload.data


def test_pandas_reads_vectors_actors_and_times() -> None:
    done = sealed(Robot().episode(5, intervene_at=2))
    payload = build_payload(done.episode, done.closed_by, 1)
    frame = pd.read_parquet(io.BytesIO(payload.data))
    assert frame["index"].tolist() == [0, 1, 2, 3, 4]
    assert frame["actor"].tolist() == ["POLICY", "POLICY", "HUMAN", "POLICY", "POLICY"]
    np.testing.assert_array_equal(np.stack(frame["state"].tolist()), np.repeat(np.arange(5.0)[:, None], STATE, 1))
    assert [value is None for value in frame["proposed_action"]] == [True, True, False, True, True]
    assert frame["proposed_action"][2].tolist() == [9.0] * ACTION
    assert str(frame["captured_at"].dtype).endswith("UTC]")
    assert METADATA_KEY in pq.read_schema(io.BytesIO(payload.data)).metadata


def test_numbers_that_json_does_not_have_are_refused_before_a_payload_is_made_that_nobody_can_read() -> None:
    done = sealed(Robot().episode(1))
    done.episode.ended = done.episode.ended and done.episode.ended.model_copy(
        update={"body": Robot().end(done.episode.episode_id, 0, 1, simulated_at=float("nan")).body}
    )
    with pytest.raises(ValidationError):
        build_payload(done.episode, done.closed_by, 1)


def test_an_episode_without_steps_has_an_empty_payload() -> None:
    done = sealed(Robot().episode(0))
    payload = build_payload(done.episode, done.closed_by, 1)
    assert len(read_payload(payload.data).steps) == 0
    assert (payload.facts.step_count, payload.facts.human_ranges) == (0, ())
    assert len(ordered_steps([])) == 0


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all" * 10])
def test_bytes_that_are_no_payload_are_told_so(data: bytes) -> None:
    with pytest.raises(PayloadUnreadable):
        read_payload(data)


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(1, 13)), st.randoms(use_true_random=False))
def test_the_union_of_two_halves_is_the_whole(late_ones: set[int], random: object) -> None:
    events = Robot().episode(12)  # sequence 0 starts, 13 ends
    early = [event for event in events if event.sequence not in late_ones]
    late = [event for event in events if event.sequence in late_ones or event.sequence % 3 == 0]
    first = sealed(early, timeout=bool(late_ones))
    stored = read_payload(build_payload(first.episode, first.closed_by, 1).data)
    rest = Assembly(EmittedLog(), 10.0)
    log = Log()
    outcome = rest.add(decoded([log.append(event) for event in late]))
    outcome.sealed += rest.advance(10**12).sealed
    union = merged(stored, outcome.sealed[0].episode)[0]
    if not late_ones:
        assert union is None
        return
    assert union is not None
    whole = sealed(events)
    assert union.closed_by() is ClosedBy.COMPLETE
    payload = build_payload(union, ClosedBy.COMPLETE, 2)
    reference = build_payload(whole.episode, whole.closed_by, 2)
    assert all_values(payload) == all_values(reference)
    assert payload.facts.end is EpisodeEnd.TERMINATED
    assert payload.facts.sequences == reference.facts.sequences
