"""Episodes: the list with its filters, and names to filter by."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Trouble
from consumers.console.choices import (
    OUTCOMES,
    SOURCES,
    id_of,
    moment_of,
    number_of,
    one_of,
    text_of,
    window_of,
)
from consumers.console.serving import console_of, page, panel

_SHOWN = 50
_LIST = """
SELECT episode_id, started_at, ended_at, task, robot_id, source, policy, policy_version, success, excluded, end,
    step_count, human_step_count, intervention_count, reward_sum, missing_count, rejected_count
FROM episodes
WHERE start_hour >= {{since:DateTime64(0, 'UTC')}} AND started_at >= {{begin:DateTime64(0, 'UTC')}} {where}
ORDER BY started_at DESC, episode_id LIMIT 51
"""
# Of episodes that began at the same time, the order goes on by their ids.
_BEFORE = "started_at < {before:DateTime64(6, 'UTC')}"
_BEHIND = f"({_BEFORE} OR started_at = {{before:DateTime64(6, 'UTC')}} AND episode_id > {{behind:UUID}})"
_NAMES = {
    "tasks": "SELECT DISTINCT task AS name FROM episodes ORDER BY name LIMIT 500",
    "robots": "SELECT robot_id AS name FROM robot_status ORDER BY name LIMIT 500",
    "lines": "SELECT DISTINCT policy AS name FROM policy_versions ORDER BY name LIMIT 500",
}
_BY_OUTCOME = {"success": "success", "failure": "NOT success", "unknown": "success IS NULL"}


def episodes(request: Request) -> Response:
    """The page."""
    given = request.query_params
    return page(
        request,
        "episodes.html",
        title="Episodes",
        window=window_of(given),
        task=text_of(given, "task"),
        robot=text_of(given, "robot"),
        source=one_of(given, "source", SOURCES),
        outcome=one_of(given, "outcome", OUTCOMES),
        policy=text_of(given, "policy"),
        version="" if (version := number_of(given, "version")) is None else version,
        helped=one_of(given, "helped", ("yes",)),
        sources=SOURCES,
        outcomes=OUTCOMES,
    )


@panel("panels/episodes.html")
def listed(request: Request) -> dict[str, Any]:
    """Episodes as chosen, the latest first, so many at a time."""
    console, given = console_of(request), request.query_params
    window = window_of(given)
    behind = str(id_of(given["behind"])) if given.get("behind") else ""
    wanted: dict[str, tuple[str, object]] = {
        "task = {task:String}": ("task", text_of(given, "task")),
        "robot_id = {robot:String}": ("robot", text_of(given, "robot")),
        "source = {source:String}": ("source", one_of(given, "source", SOURCES)),
        "policy = {policy:String}": ("policy", text_of(given, "policy")),
        "policy_version = {version:Int64}": ("version", number_of(given, "version")),
        _BEHIND if behind else _BEFORE: ("before", moment_of(given, "before")),
    }
    chosen = {condition: bound for condition, bound in wanted.items() if bound[1] not in ("", None)}
    conditions = list(chosen)
    if outcome := one_of(given, "outcome", OUTCOMES):
        conditions.append(_BY_OUTCOME[outcome])
    if one_of(given, "helped", ("yes",)):
        conditions.append("human_step_count > 0")
    sql = _LIST.format(where="".join(f" AND {condition}" for condition in conditions))
    bound = {**dict(chosen.values()), **window.bound(console.clock.now()), "behind": behind}
    rows = console.warehouse.ask(sql, bound, remembered=3)
    older = ""
    if len(rows) > _SHOWN:
        last = rows[_SHOWN - 1]
        place = {"before": last["started_at"].isoformat(), "behind": str(last["episode_id"])}
        older = urlencode({**{k: v for k, v in given.items() if v}, **place})
    return {
        "rows": rows[:_SHOWN],
        "older": older,
        "begun": bool(given.get("before")),
        "filtered": bool(conditions),
        "window": window,
    }


@panel("panels/options.html")
def names(request: Request) -> dict[str, Any]:
    """Tasks, robots or policy lines that there are, for a list to pick from."""
    sql = _NAMES.get(request.path_params["kind"])
    if sql is None:
        raise Trouble("There is no such list.", f"There are {', '.join(_NAMES)}.", 404)
    return {"names": [row["name"] for row in console_of(request).warehouse.ask(sql, remembered=60)]}
