"""Interventions: how much humans helped, over time and by policy version, why, and what came of it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row
from consumers.console.charts import Chart, Label, Line, chart, percent
from consumers.console.choices import grain, text_of, window_of
from consumers.console.formatting import time_of
from consumers.console.serving import console_of, page, panel

_MARKED, _VERSIONS_LISTED, _CHARTS_DRAWN = 20, 60, 24
_OVER_TIME = """
SELECT intDiv(toUnixTimestamp(ended_at), {{grain:UInt32}}) * {{grain:UInt32}} AS bin,
    count() AS episodes, sum(intervention_count) AS interventions, sum(step_count) AS steps,
    sum(human_step_count) AS human_steps
FROM episode_outcomes
WHERE hour >= {{since:DateTime64(0, 'UTC')}} AND ended_at >= {{begin:DateTime64(0, 'UTC')}}
    AND source = 'ONLINE' {where}
GROUP BY bin ORDER BY bin LIMIT 50000
"""
_SPAN = """
SELECT toUnixTimestamp(min(ended_at)) AS first, toUnixTimestamp(max(ended_at)) AS last
FROM episode_outcomes
WHERE hour >= {{since:DateTime64(0, 'UTC')}} AND ended_at >= {{begin:DateTime64(0, 'UTC')}}
    AND source = 'ONLINE' {where}
"""
_BY_VERSION = """
SELECT policy, policy_version, task, episodes, interventions_per_episode, human_share,
    mean_steps_between_interventions
FROM human_effort {where} ORDER BY policy, policy_version DESC, task LIMIT 60 BY policy, task LIMIT 10000
"""
_RETURN = """
SELECT policy, task, policy_version, judged, human_steps_before, autonomous_success_rate, gain_points,
    points_per_1000_human_steps
FROM return_on_human_effort {where} ORDER BY policy, policy_version DESC, task LIMIT 1 BY policy, task LIMIT 60
"""
_REASONS = """
SELECT reason, count() AS takeovers, avg(last_step - first_step + 1) AS mean_steps, uniqExact(robot_id) AS robots
FROM interventions
WHERE began_at >= {{begin:DateTime64(0, 'UTC')}} AND source = 'ONLINE' AND NOT excluded {where}
GROUP BY reason ORDER BY takeovers DESC LIMIT 30
"""
_LATEST = """
SELECT episode_id, began_at, robot_id, task, operator, reason, first_step, last_step
FROM interventions
WHERE began_at >= {{begin:DateTime64(0, 'UTC')}} AND source = 'ONLINE' AND NOT excluded {where}
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
    [span] = _asked(request, _SPAN)
    rows = _asked(request, _OVER_TIME, grain=grain(span["first"], span["last"]))
    label = time_of(span["last"] - span["first"])
    return {
        "charts": _drawn(rows, label) if rows else [],
        "left_out": 0,
        "wider": True,
        "what": "online episode",
        "window": window,
        "task": text_of(request.query_params, "task"),
    }


@panel("panels/effort.html")
def by_version(request: Request) -> dict[str, Any]:
    """Help that each policy version needed: a chart for each line and task, and the numbers of the newest."""
    rows = _asked(request, _BY_VERSION)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["policy_version"]):
        if row["policy_version"]:
            groups.setdefault((row["policy"], row["task"]), []).append(row)
    lines = {policy for policy, _ in groups}
    charts = [
        _share_chart(
            task if len(lines) == 1 else f"{task}, {policy}",
            [row["policy_version"] for row in of_task],
            [row["human_share"] for row in of_task],
            "policy version",
            lambda x: f"{x:.0f}",
        )
        for (policy, task), of_task in sorted(groups.items())
    ]
    return {"rows": rows[:_VERSIONS_LISTED], "charts": charts[:_CHARTS_DRAWN]}


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
    windowed = "{{begin" in sql
    if task:
        bound["task"] = task
    condition = "task = {task:String}" if task else ""
    if windowed:
        bound |= window.bound(console.clock.now())
    word = "AND" if windowed else "WHERE"
    where = f"{word} {condition}" if condition else ""
    return console.warehouse.ask(sql.format(where=where), bound, remembered=10)


def _drawn(rows: list[Row], label: Label) -> list[Chart]:
    places = [row["bin"] for row in rows]
    shares = [row["human_steps"] / row["steps"] if row["steps"] else None for row in rows]
    rates = [row["interventions"] / row["episodes"] for row in rows]
    return [
        _share_chart("Human share", places, shares, "time, UTC", label),
        chart(
            "Takeovers",
            "for each online episode",
            places,
            [Line("takeovers", rates)],
            x_title="time, UTC",
            x_label=label,
            y_range=(0.0, max(1.0, *rates)),
            marks=len(places) <= _MARKED,
            steps=2,
        ),
    ]


def _share_chart(title: str, x: list[int], shares: list[float | None], x_title: str, label: Label) -> Chart:
    top = max((value for value in shares if value is not None), default=0.0)
    return chart(
        title,
        "of steps by a human",
        x,
        [Line("human share", shares)],
        x_title=x_title,
        x_label=label,
        y_label=percent,
        y_range=(0.0, max(top, 0.05)),
        marks=len(x) <= _MARKED,
        steps=2,
    )
