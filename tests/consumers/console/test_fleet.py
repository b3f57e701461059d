"""Looks at the fleet stay small, and forget nobody who spoke within a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from consumers.console.asking import Warehouse
from consumers.console.fleet import Roster, with_presence

BEGIN = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Beats:
    """Heartbeats by robot and time, answered as the query does."""

    def __init__(self) -> None:
        self.beats: dict[str, datetime] = {}
        self.looks: list[datetime] = []

    def ask(self, _sql: str, bound: dict[str, str], *, remembered: float) -> list[dict[str, Any]]:
        assert remembered == 0
        since = datetime.strptime(bound["since"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        self.looks.append(since)
        return [{"robot_id": name, "seen_at": at} for name, at in self.beats.items() if at >= since]


def test_a_look_after_the_first_reads_only_what_is_new_and_keeps_the_others() -> None:
    beats = Beats()
    roster = Roster(cast("Warehouse", beats))
    beats.beats = {"b": BEGIN - timedelta(hours=23), "a": BEGIN, "old": BEGIN - timedelta(days=2)}

    def names(seconds: float) -> list[str]:
        return [row["robot_id"] for row in roster.rows(BEGIN + timedelta(seconds=seconds))]

    assert names(0) == ["a", "b"]
    assert names(0.3) == ["a", "b"]
    assert beats.looks == [BEGIN - timedelta(days=1)]  # a look a moment ago is that look
    beats.beats["c"] = BEGIN + timedelta(seconds=1)
    assert names(2) == ["a", "b", "c"]
    assert beats.looks[1] == BEGIN - timedelta(minutes=2)
    assert names(7200) == ["a", "c"]  # what was silent for a day is gone at the next whole look
    assert beats.looks[2] == BEGIN + timedelta(hours=2) - timedelta(days=1)


def test_presence_follows_from_the_age_of_a_heartbeat() -> None:
    def seen(seconds: float, **changes: object) -> dict[str, Any]:
        row = {"seen_at": BEGIN - timedelta(seconds=seconds), "policy": "line", "policy_version": 3, **changes}
        return with_presence(row, BEGIN, {"line": 5})

    assert [seen(age)["presence"] for age in (-2, 14, 16, 299, 301)] == ["live", "live", "quiet", "quiet", "gone"]
    assert [seen(0)["behind"], seen(0, policy="")["behind"], seen(0, policy_version=9)["behind"]] == [2, 0, 0]
