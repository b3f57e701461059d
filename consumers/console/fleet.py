"""The fleet: each robot's newest heartbeat, and what the last hours brought."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row, Warehouse
from consumers.console.choices import window_of
from consumers.console.formatting import aware
from consumers.console.serving import console_of, page, panel

LIVE_SECONDS, GONE_SECONDS = 15.0, 300.0
"""Heartbeats come every second: 15 without one are no accident, five minutes mean that nobody is there."""

_ROBOTS_SHOWN = 500
_LOOKS_BACK = timedelta(days=1)
_ROBOTS = """
SELECT robot_id, received_at AS seen_at, policy, policy_version, policy_wanted, spool_depth, spool_age_seconds,
    spool_bytes, frames_dropped, episodes_ended, errors, waiting, clock_offset_seconds
FROM robot_status WHERE received_at >= {since:DateTime64(0, 'UTC')} ORDER BY robot_id
"""
_NEWEST = "SELECT policy, max(version) AS version FROM policy_versions GROUP BY policy"
_TOTALS = """
SELECT count() AS episodes, count(success) AS judged, countIf(success = 1) AS successes,
    sum(intervention_count) AS interventions, sum(step_count) AS steps, sum(human_step_count) AS human_steps
FROM episode_outcomes
WHERE hour >= {since:DateTime64(0, 'UTC')} AND ended_at >= {begin:DateTime64(0, 'UTC')} AND source = 'ONLINE'
"""
_LATEST = """
SELECT episode_id, started_at, task, robot_id, source, policy_version, success, end, step_count, human_step_count
FROM episodes WHERE start_hour >= {since:DateTime64(0, 'UTC')} AND started_at >= {begin:DateTime64(0, 'UTC')}
ORDER BY started_at DESC LIMIT 8
"""


def fleet(request: Request) -> Response:
    """The page; its table is also what the live stream sends."""
    return page(request, "fleet.html", title="Fleet", window=window_of(request.query_params))


@panel("panels/fleet.html")
def robots(request: Request) -> dict[str, Any]:
    """Every robot's state now."""
    console = console_of(request)
    return state_of(console.warehouse, console.clock.now())


@panel("panels/totals.html")
def totals(request: Request) -> dict[str, Any]:
    """What online episodes brought in the window."""
    console, window = console_of(request), window_of(request.query_params)
    [found] = console.warehouse.ask(_TOTALS, window.bound(console.clock.now()), remembered=10)
    return {"totals": found, "window": window}


@panel("panels/latest.html")
def latest(request: Request) -> dict[str, Any]:
    """The latest episodes."""
    console, window = console_of(request), window_of(request.query_params)
    bound = window.bound(console.clock.now())
    return {"episodes": console.warehouse.ask(_LATEST, bound, remembered=5), "window": window}


def state_of(warehouse: Warehouse, now: datetime) -> dict[str, Any]:
    """What the table of robots shows.

    Raises:
        Trouble: ClickHouse does not say.
    """
    # By the minute, so that looks within the same half second are one.
    since = (now - _LOOKS_BACK).strftime("%Y-%m-%d %H:%M:00")
    found = warehouse.ask(_ROBOTS, {"since": since}, remembered=0.5)
    newest = {row["policy"]: row["version"] for row in warehouse.ask(_NEWEST, remembered=1)}
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
