"""Frames in a file: what was written comes back, and whatever happens to the bytes, nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.spool.framing import MARK, OVERHEAD, Stored, find, pack, unpack

EVENTS = st.builds(
    Stored,
    st.integers(0, 2**63),
    st.floats(allow_nan=False),
    st.integers(0, 255),
    st.binary(max_size=60),
    st.binary(max_size=200) | st.just(MARK * 3) | st.just(pack(1, 2, 3.0, b"t", b"nested")[:-1]),
)


def packed(event: Stored) -> bytes:
    return pack(event.position, event.kind, event.taken_at, event.traceparent, event.body)


@given(st.lists(EVENTS, max_size=5))
def test_what_was_written_comes_back(events: list[Stored]) -> None:
    data = b"".join(map(packed, events))
    assert len(data) == sum(OVERHEAD + len(e.traceparent) + len(e.body) for e in events)
    assert unpack(data) == (events, len(data), False)
    assert unpack(data, limit=1).events == events[:1]


@given(st.lists(EVENTS, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_gives_all_that_lies_before_the_cut_and_is_not_wrong(
    events: list[Stored], data: st.DataObject
) -> None:
    whole = b"".join(map(packed, events))
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(map(packed, events[:n]))) for n in range(len(events) + 1)]
    found = unpack(whole[:cut])
    assert found.events == events[: sum(end <= cut for end in ends) - 1]
    assert not found.wrong
    assert found.end == max(end for end in ends if end <= cut)


@given(st.lists(EVENTS, min_size=2, max_size=5), st.data())
def test_a_byte_that_was_altered_costs_its_own_event_and_no_other(
    events: list[Stored], data: st.DataObject
) -> None:
    frames = list(map(packed, events))
    which = data.draw(st.integers(0, len(frames) - 2))
    byte = data.draw(st.integers(0, len(frames[which]) - 1))
    altered = bytearray(frames[which])
    altered[byte] ^= data.draw(st.integers(1, 255))
    whole = b"".join([*frames[:which], bytes(altered), *frames[which + 1 :]])
    first = unpack(whole)
    assert first.events == events[:which]
    following = find(whole, first.end + 1)
    assert following == sum(map(len, frames[: which + 1]))
    assert unpack(whole, following).events == events[which + 1 :]
