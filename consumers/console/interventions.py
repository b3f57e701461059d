"""Interventions: how much humans helped, over time and by policy version, why, and what came of it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row
from consumers.console.charts import Chart, Line, chart, percent
from consumers.console.choices import merged, text_of, window_of
from consumers.console.formatting import clock, day
from consumers.console.serving import console_of, page, panel

_OVER_TIME = """
SELECT intDiv(toUnixTimestamp(ended_at), {{grain:UInt32}}) * {{grain:UInt32}} AS bin,
    count() AS episodes, sum(intervention_count) AS interventions, sum(step_count) AS steps,
    sum(human_step_count) AS human_steps
FROM episode_outcomes WHERE hour >= {{since:DateTime64(0, 'UTC')}} AND source = 'ONLINE' {where}
GROUP BY bin ORDER BY bin LIMIT 50000
"""
_BY_VERSION = """
SELECT policy, policy_version, task, episodes, interventions_per_episode, human_share,
    mean_steps_between_interventions
FROM human_effort {where} ORDER BY policy, policy_version DESC, task LIMIT 60
"""
_RETURN = """
SELECT policy, task, policy_version, judged, human_steps_before, autonomous_success_rate, gain_points,
    points_per_1000_human_steps
FROM return_on_human_effort {where} ORDER BY policy, policy_version DESC, task LIMIT 1 BY policy, task LIMIT 60
"""
_REASONS = """
SELECT reason, count() AS takeovers, avg(last_step - first_step + 1) AS mean_steps, uniqExact(robot_id) AS robots
FROM interventions WHERE began_at >= {{since:DateTime64(0, 'UTC')}} {where}
GROUP BY reason ORDER BY takeovers DESC LIMIT 30
"""
_LATEST = """
SELECT episode_id, began_at, robot_id, task, operator, reason, first_step, last_step
FROM interventions WHERE began_at >= {{since:DateTime64(0, 'UTC')}} {where}
ORDER BY began_at DESC LIMIT 15
"""


def interventions(request: Request) -> Response:
    """The page."""
    given = request.query_params
    return page(
        request, "interventions.html", title="Interventions", window=window_of(given), task=text_of(given, "task")
    )


@panel("panels/charts.html")
def over_time(request: Request) -> dict[str, Any]:
    """Human share of the steps, and takeovers for each episode, in the window."""
    window = window_of(request.query_params)
    rows = _asked(request, _OVER_TIME, grain=window.grain)
    step = merged([row["bin"] for row in rows], window.grain)
    label = clock if window.seconds <= 86_400 else day
    return {
        "charts": _drawn(rows, step, label) if rows else [],
        "left_out": 0,
        "wider": True,
        "what": "online episode",
        "window": window,
    }


@panel("panels/effort.html")
def by_version(request: Request) -> dict[str, Any]:
    """Help that each policy version needed."""
    return {"rows": _asked(request, _BY_VERSION)}


@panel("panels/return.html")
def returned(request: Request) -> dict[str, Any]:
    """What the help bought, for the newest version of each task."""
    return {"rows": _asked(request, _RETURN)}


@panel("panels/reasons.html")
def reasons(request: Request) -> dict[str, Any]:
    """Why humans took over in the window."""
    return {"rows": _asked(request, _REASONS), "window": window_of(request.query_params)}


@panel("panels/takeovers.html")
def latest(request: Request) -> dict[str, Any]:
    """The latest takeovers."""
    return {"rows": _asked(request, _LATEST), "window": window_of(request.query_params)}


def _asked(request: Request, sql: str, **bound: object) -> list[Row]:
    console, window = console_of(request), window_of(request.query_params)
    task = text_of(request.query_params, "task")
    windowed = "{{since" in sql
    if task:
        bound["task"] = task
    condition = "task = {task:String}" if task else ""
    if windowed:
        bound["since"] = window.since(console.clock.now())
    word = "AND" if windowed else "WHERE"
    where = f"{word} {condition}" if condition else ""
    return console.warehouse.ask(sql.format(where=where), bound, remembered=10)


def _drawn(rows: list[Row], step: int, label: Any) -> list[Chart]:
    sums: dict[int, list[float]] = {}
    for row in rows:
        found = sums.setdefault(row["bin"] // step * step, [0.0, 0.0, 0.0, 0.0])
        for place, name in enumerate(("episodes", "interventions", "steps", "human_steps")):
            found[place] += row[name]
    places = sorted(sums)
    shares = [sums[p][3] / sums[p][2] if sums[p][2] else None for p in places]
    rates = [sums[p][1] / sums[p][0] if sums[p][0] else None for p in places]
    top = max((value for value in shares if value is not None), default=0.0)
    marks = len(places) <= 20
    common: dict[str, Any] = {"x_title": "time, UTC", "x_label": label, "marks": marks, "steps": 3}
    return [
        chart(
            "Human share of steps",
            "of online steps",
            places,
            [Line("human share", shares)],
            y_label=percent,
            y_range=(0.0, max(top, 0.05)),
            **common,
        ),
        chart(
            "Takeovers",
            "for each online episode",
            places,
            [Line("takeovers", rates)],
            y_range=(0.0, max(1.0, *(rate or 0.0 for rate in rates))),
            **common,
        ),
    ]
