"""The fleet: each robot's newest heartbeat, and what the last hours brought."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row, Warehouse
from consumers.console.choices import window_of
from consumers.console.formatting import aware
from consumers.console.serving import Console, console_of, page, panel

LIVE_SECONDS, GONE_SECONDS = 15.0, 300.0
"""Heartbeats come every second: 15 without one are no accident, five minutes mean that nobody is there."""

_ROBOTS_SHOWN = 500
_REMEMBERED, _WHOLE_EVERY = timedelta(days=1), timedelta(minutes=10)
_OVERLAP = timedelta(minutes=2)
"""What a look takes in again: heartbeats come late, and robots' clocks are off."""
_AGAIN_AFTER = timedelta(milliseconds=500)


# No FINAL, as a heartbeat that is there twice changes nothing, and no view over all of them: there are millions.
_ROBOTS = """
WITH (boot_epoch, reported_at) AS age
SELECT robot_id, max(age).1 AS boot, max(age).2 AS seen_at, argMax(policy, age) AS policy,
    argMax(policy_version, age) AS policy_version, argMax(tuple(policy_wanted), age).1 AS policy_wanted,
    argMax(spool_depth, age) AS spool_depth, argMax(spool_age_seconds, age) AS spool_age_seconds,
    argMax(tuple(spool_bytes), age).1 AS spool_bytes, argMax(tuple(frames_dropped), age).1 AS frames_dropped,
    argMax(episodes_ended, age) AS episodes_ended, argMax(errors, age) AS errors, argMax(waiting, age) AS waiting,
    argMax(tuple(clock_offset_seconds), age).1 AS clock_offset_seconds
FROM raw_robot_status WHERE reported_at >= {since:DateTime64(6, 'UTC')}
GROUP BY robot_id
"""
_NEWEST = "SELECT policy, max(version) AS version FROM policy_versions GROUP BY policy"
_TOTALS = """
SELECT count() AS episodes, count(success) AS judged, countIf(success = 1) AS successes,
    sum(intervention_count) AS interventions, sum(step_count) AS steps, sum(human_step_count) AS human_steps
FROM episode_outcomes WHERE hour >= {since:DateTime64(0, 'UTC')} AND source = 'ONLINE'
"""
_LATEST = """
SELECT episode_id, started_at, task, robot_id, source, policy_version, success, end, step_count, human_step_count
FROM episodes WHERE start_hour >= {since:DateTime64(0, 'UTC')} ORDER BY started_at DESC LIMIT 8
"""


def fleet(request: Request) -> Response:
    """The page; its table is also what the live stream sends."""
    return page(request, "fleet.html", title="Fleet", window=window_of(request.query_params))


@panel("panels/fleet.html")
def robots(request: Request) -> dict[str, Any]:
    """Every robot's state now."""
    return state_of(console_of(request))


@panel("panels/totals.html")
def totals(request: Request) -> dict[str, Any]:
    """What online episodes brought in the window."""
    console, window = console_of(request), window_of(request.query_params)
    [found] = console.warehouse.ask(_TOTALS, {"since": window.since(console.clock.now())}, remembered=10)
    return {"totals": found, "window": window}


@panel("panels/latest.html")
def latest(request: Request) -> dict[str, Any]:
    """The latest episodes."""
    console, window = console_of(request), window_of(request.query_params)
    bound = {"since": window.since(console.clock.now())}
    return {"episodes": console.warehouse.ask(_LATEST, bound, remembered=5), "window": window}


class Roster:
    """The newest heartbeat of each robot. After a first look at a whole day, looks are at what is new.

    Threads may share it.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._guard = threading.Lock()
        self._known: dict[str, Row] = {}
        self._looked_at: datetime | None = None
        self._whole_at: datetime | None = None

    def rows(self, now: datetime) -> list[Row]:
        """Robots of the last day, by name.

        Raises:
            Trouble: ClickHouse does not say.
        """
        with self._guard:
            since, whole = self._since(now)
            if since is not None:
                bound = {"since": since.strftime("%Y-%m-%d %H:%M:%S.%f")}
                found = {row["robot_id"]: row for row in self._warehouse.ask(_ROBOTS, bound, remembered=0)}
                self._known = found if whole else {**self._known, **found}
                self._looked_at = now
                self._whole_at = now if whole else self._whole_at
            return [self._known[name] for name in sorted(self._known)]

    def _since(self, now: datetime) -> tuple[datetime | None, bool]:
        """From when on to look, None for not at all; and whether that is everything."""
        if self._looked_at is None or self._whole_at is None or now - self._whole_at > _WHOLE_EVERY:
            return now - _REMEMBERED, True
        if now - self._looked_at < _AGAIN_AFTER:
            return None, False
        return self._looked_at - _OVERLAP, False


def state_of(console: Console) -> dict[str, Any]:
    """What the table of robots shows.

    Raises:
        Trouble: ClickHouse does not say.
    """
    now, found = console.clock.now(), console.roster.rows(console.clock.now())
    newest = {row["policy"]: row["version"] for row in console.warehouse.ask(_NEWEST, remembered=1)}
    rows = [with_presence(row, now, newest) for row in found]
    shown = sorted(rows, key=lambda row: not row["errors"])[:_ROBOTS_SHOWN] if len(rows) > _ROBOTS_SHOWN else rows
    return {
        "robots": shown,
        "live": sum(row["presence"] == "live" for row in rows),
        "troubled": sum(bool(row["errors"]) for row in rows),
        "spooled": sum(row["spool_depth"] for row in rows),
        "newest": newest,
        "count": len(rows),
        "more": len(rows) - len(shown),
    }


def with_presence(row: Row, now: datetime, newest: dict[str, int]) -> Row:
    """A heartbeat with what follows from its age: live, quiet or gone; and how far behind its policy is."""
    age = (now - aware(row["seen_at"])).total_seconds()
    presence = "live" if age < LIVE_SECONDS else "quiet" if age < GONE_SECONDS else "gone"
    behind = newest.get(row["policy"], row["policy_version"]) - row["policy_version"] if row["policy"] else 0
    return {**row, "presence": presence, "behind": max(behind, 0)}
