"""Success: over time and by policy version, a small chart for each task, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row
from consumers.console.charts import Chart, Line, chart, percent
from consumers.console.choices import SOURCES, grain, one_of, text_of, window_of
from consumers.console.formatting import time_of
from consumers.console.serving import console_of, page, panel
from consumers.console.wilson import interval

_VERSIONS_SHOWN = 60
_TASKS_DRAWN = 24
_BY_TASK = """
SELECT task, source, episodes, judged, successes, autonomous_successes, success_rate, success_low, success_high
FROM success_by_task {where} ORDER BY task, source LIMIT 500
"""
_OVER_TIME = """
SELECT task, intDiv(toUnixTimestamp(ended_at), {{grain:UInt32}}) * {{grain:UInt32}} AS bin,
    count(success) AS judged, countIf(success = 1) AS successes
FROM episode_outcomes
WHERE hour >= {{since:DateTime64(0, 'UTC')}} AND ended_at >= {{begin:DateTime64(0, 'UTC')}} {where}
GROUP BY task, bin HAVING judged > 0 ORDER BY task, bin LIMIT 50000
"""
_SPAN = """
SELECT toUnixTimestamp(min(ended_at)) AS first, toUnixTimestamp(max(ended_at)) AS last,
    count(success) / greatest(uniqExact(task), 1) AS of_a_task
FROM episode_outcomes
WHERE hour >= {{since:DateTime64(0, 'UTC')}} AND ended_at >= {{begin:DateTime64(0, 'UTC')}} {where}
"""
# The newest of each line: a new line's first versions are old numbers. Version 0 stands for none.
_BY_VERSION = """
SELECT policy, policy_version, task, sum(judged) AS judged, sum(successes) AS successes
FROM success_by_policy_version
WHERE (policy, policy_version) IN
(
    SELECT policy, arrayJoin(range(greatest(max(version) + 1 - {{versions:Int64}}, 0), max(version) + 1))
    FROM policy_versions GROUP BY policy
) {where}
GROUP BY policy, policy_version, task HAVING judged > 0 ORDER BY policy, task, policy_version LIMIT 10000
"""


def success(request: Request) -> Response:
    """The page."""
    given = request.query_params
    return page(
        request,
        "success.html",
        title="Success",
        window=window_of(given),
        source=one_of(given, "source", SOURCES, "ONLINE"),
        task=text_of(given, "task"),
        sources=SOURCES,
    )


@panel("panels/by_task.html")
def by_task(request: Request) -> dict[str, Any]:
    """All there ever was, one row for each task and source."""
    where, bound = _conditions(request)
    sql = _BY_TASK.format(where=f"WHERE {where}" if where else "")
    return {"rows": console_of(request).warehouse.ask(sql, bound, remembered=15), "task": bound.get("task")}


@panel("panels/charts.html")
def over_time(request: Request) -> dict[str, Any]:
    """Success in the window, a chart for each task."""
    console, window = console_of(request), window_of(request.query_params)
    where, bound = _conditions(request)
    where, bound = f"AND {where}" if where else "", bound | window.bound(console.clock.now())
    [span] = console.warehouse.ask(_SPAN.format(where=where), bound, remembered=10)
    bound["grain"] = grain(span["first"], span["last"], span["of_a_task"])
    rows = console.warehouse.ask(_OVER_TIME.format(where=where), bound, remembered=10)
    label = time_of(span["last"] - span["first"])
    found = [
        _rates(task, {row["bin"]: (row["judged"], row["successes"]) for row in of_task}, "time, UTC", label)
        for task, of_task in _by(rows, "task").items()
    ]
    return {**_drawn(found), "wider": True, "what": "judged episode", "window": window, "task": bound.get("task")}


@panel("panels/charts.html")
def by_version(request: Request) -> dict[str, Any]:
    """Success of the newest versions, a chart for each line and task."""
    where, bound = _conditions(request)
    sql = _BY_VERSION.format(where=f"AND {where}" if where else "")
    rows = console_of(request).warehouse.ask(sql, {**bound, "versions": _VERSIONS_SHOWN}, remembered=15)
    lines = {row["policy"] for row in rows}
    found = []
    for (policy, task), of_task in _by(rows, "policy", "task").items():
        counts = {row["policy_version"]: (row["judged"], row["successes"]) for row in of_task}
        title = f"{task}" if len(lines) == 1 else f"{task}, {policy}"
        found.append(_rates(title, counts, "policy version", lambda x: f"{x:.0f}", marks=True))
    what = "judged episode of a policy version"
    return {**_drawn(found), "wider": False, "what": what, "task": bound.get("task")}


def _conditions(request: Request) -> tuple[str, dict[str, object]]:
    """What was chosen, as a condition of our own words and the values bound to it."""
    given = request.query_params
    wanted: dict[str, tuple[str, object]] = {
        "source = {source:String}": ("source", one_of(given, "source", SOURCES, "ONLINE")),
        "task = {task:String}": ("task", text_of(given, "task")),
    }
    chosen = {condition: bound for condition, bound in wanted.items() if bound[1]}
    return " AND ".join(chosen), dict(chosen.values())


def _by(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]].append(row)
    return found


def _rates(
    title: str, counts: dict[int, tuple[int, int]], x_title: str, label: Any, *, marks: bool = False
) -> Chart:
    places = sorted(counts)
    ends = [interval(counts[place][1], counts[place][0]) for place in places]
    rate = Line(
        "success rate",
        [counts[place][1] / counts[place][0] for place in places],
        [end[0] if end else None for end in ends],
        [end[1] if end else None for end in ends],
    )
    judged = sum(count for count, _ in counts.values())
    return chart(
        title,
        f"success, {judged:,} judged",
        places,
        [rate],
        x_title=x_title,
        x_label=label,
        y_label=percent,
        y_range=(0.0, 1.0),
        marks=marks or len(places) <= 20,
        steps=2,
    )


def _drawn(found: list[Chart]) -> dict[str, Any]:
    return {"charts": found[:_TASKS_DRAWN], "left_out": max(0, len(found) - _TASKS_DRAWN)}
