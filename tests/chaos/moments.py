"""What was under way when a member was killed. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.chaos.ledger import Ledger
from tests.chaos.readings import Announcement


def kills_with_open_episode(
    deaths: Iterable[float], ledger: Ledger, planned: Counter[str], stream: list[Announcement]
) -> int:
    """Deaths at which an episode was open that began before another one that was announced already.

    Only then the committed offset lies before events that were announced, so that a successor must remember them.
    Both are of one partition number.

    Args:
        deaths: when members died, milliseconds since the epoch.
        ledger: what was acknowledged, and when.
        planned: how many events each episode has.
        stream: the training stream.
    """
    announced: dict[str, int] = {}
    for event in stream:
        announced.setdefault(event.datum["episode_id"], event.appended_ms)
    spans: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for episode_id, sent in ledger.episodes().items():
        spans[sent[0].places[0][1]].append((episode_id, sorted(min(copies.times) for copies in sent)))
    return sum(
        any(_is_open_before_another(at, episodes, planned, announced) for episodes in spans.values())
        for at in deaths
    )


def _is_open_before_another(
    at: float, episodes: list[tuple[str, list[int]]], planned: Counter[str], announced: dict[str, int]
) -> bool:
    settled = [times[0] for episode_id, times in episodes if announced.get(episode_id, at) < at]
    latest = max(settled, default=0)
    return any(
        announced.get(episode_id, at) >= at
        and times[0] < at
        and times[0] < latest
        and sum(time < at for time in times) < planned[episode_id]
        for episode_id, times in episodes
    )
