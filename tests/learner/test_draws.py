"""Every draw is counted once, for the episode that it came from."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.draws import DrawCounter
from learner.progress import lineage
from schemas.events import EpisodeDraws

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Rounds = list[tuple[int, list[list[int]]]]


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.lists(st.integers(0, 10**6), min_size=1), max_size=4)), max_size=6
    )
)
def test_draws_belong_to_the_episode_whose_frames_they_are(rounds: Rounds) -> None:
    counter, owners, total = DrawCounter(lambda row: (f"episode-{row}", 1)), list[int](), 0
    for number, (frames, batches) in enumerate(rounds):
        owners += [number] * frames
        expected: dict[int, int] = {}
        for batch in batches:
            places = [place % len(owners) for place in batch]
            counter.count(np.array([owners[place] for place in places], np.int32))
            total += len(places)
            for place in places:
                expected[owners[place]] = expected.get(owners[place], 0) + 1
        found = {int(d.episode_id.removeprefix("episode-")): d.draws for d in counter.take()}
        assert found == expected
        total -= sum(found.values())
    assert total == 0
    assert counter.take() == ()


def test_revisions_of_an_episode_are_counted_apart() -> None:
    counter = DrawCounter(lambda row: ("one", row + 1))
    counter.count(np.array([0, 0, 0], np.int32))
    counter.count(np.array([1], np.int32))
    assert counter.take() == (
        EpisodeDraws(episode_id="one", revision=1, draws=3),
        EpisodeDraws(episode_id="one", revision=2, draws=1),
    )


def test_very_many_batches_are_counted_on_the_way() -> None:
    counter = DrawCounter(lambda _row: ("one", 1))
    for _ in range(2500):
        counter.count(np.zeros(4, np.int32))
    assert counter.take() == (EpisodeDraws(episode_id="one", revision=1, draws=10_000),)


def test_a_long_lineage_is_told_in_parts_and_an_empty_one_in_one() -> None:
    drawn = [EpisodeDraws(episode_id=f"{n}", revision=1, draws=n) for n in range(7)]
    parts = lineage("line", 3, drawn, NOW, size=3)
    assert [(part.part, part.parts, len(part.episodes)) for part in parts] == [(1, 3, 3), (2, 3, 3), (3, 3, 1)]
    assert [draws for part in parts for draws in part.episodes] == drawn
    assert [(part.part, part.parts, part.episodes) for part in lineage("line", 1, [], NOW)] == [(1, 1, ())]
