"""What follows from a heartbeat's age, and what of it reaches the table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.console.fleet import with_presence

BEGIN = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_presence_follows_from_the_age_of_a_heartbeat() -> None:
    def seen(seconds: float, **changes: object) -> dict[str, Any]:
        row = {"seen_at": BEGIN - timedelta(seconds=seconds), "policy": "line", "policy_version": 3, **changes}
        return with_presence(row, BEGIN, {"line": 5})

    assert [seen(age)["presence"] for age in (-2, 14, 16, 299, 301)] == ["live", "live", "quiet", "quiet", "gone"]
    assert [seen(0)["behind"], seen(0, policy="")["behind"], seen(0, policy_version=9)["behind"]] == [2, 0, 0]
