"""Policies: which versions there are, what each is to the fleet, where it came from, and what it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row, Trouble
from consumers.console.choices import number_of, text_of, whole
from consumers.console.serving import console_of, page, panel

_LINES = "SELECT policy, max(version) AS newest FROM policy_versions GROUP BY policy ORDER BY policy LIMIT 100"
_VERSIONS = """
SELECT version, parent_version, algorithm, learner_step, episodes_admitted, size_bytes, key_id, published_at
FROM policy_versions WHERE policy = {policy:String} AND version < {before:Int64} ORDER BY version DESC LIMIT 51
"""
_STATES = """
SELECT generation, mode, current, previous, canary, canary_fraction, canary_robots, queued, pins, restored, author,
    reason, written_at, key_id
FROM policy_rollouts WHERE policy = {policy:String} ORDER BY generation DESC LIMIT 20
"""
_RUNNING = """
SELECT policy_version AS version, count() AS robots FROM robot_status WHERE policy = {policy:String}
GROUP BY version
"""
_ONE = "SELECT * FROM policy_versions WHERE policy = {policy:String} AND version = {version:Int64}"
_CHILDREN = """
SELECT version FROM policy_versions WHERE policy = {policy:String} AND parent_version = {version:Int64}
ORDER BY version LIMIT 20
"""
_MADE_OF = """
SELECT task, source, count() AS episodes, sum(draws) AS samples, sum(share) AS of_all, avg(success) AS success_rate
FROM lineage_of_version(policy = {policy:String}, version = {version:Int64})
GROUP BY task, source ORDER BY samples DESC, task, source LIMIT 100
"""
_MOST_DRAWN = """
SELECT episode_id, revision, draws, share, task, robot_id, source, success
FROM lineage_of_version(policy = {policy:String}, version = {version:Int64})
ORDER BY draws DESC, episode_id LIMIT 25
"""
_DID = """
SELECT task, source, episodes, judged, successes, success_rate, success_low, success_high
FROM success_by_policy_version WHERE policy = {policy:String} AND policy_version = {version:Int64}
ORDER BY task, source LIMIT 100
"""
_SWAPPED = """
SELECT robot_id, min(activated_at) AS first, max(activated_at) AS last, count() AS times FROM policy_activations
WHERE policy = {policy:String} AND version = {version:Int64} GROUP BY robot_id ORDER BY first LIMIT 200
"""


def policies(request: Request) -> Response:
    """The page: one line, by default the settings'."""
    console = console_of(request)
    lines = [row["policy"] for row in console.warehouse.ask(_LINES, remembered=5)]
    line = text_of(request.query_params, "policy")
    default = console.settings.learner.policy
    if line and line not in lines:
        raise Trouble(
            f"There is no policy line {line!r}.", f"There are {', '.join(lines) or 'none yet'}; pick one.", 404
        )
    chosen = line or (default if default in lines or not lines else lines[0])
    return page(request, "policies.html", title="Policies", lines=lines, line=chosen)


@panel("panels/versions.html")
def versions(request: Request) -> dict[str, Any]:
    """Versions of a line, the newest first, with what each is to the fleet."""
    console, line = console_of(request), text_of(request.query_params, "policy")
    before = number_of(request.query_params, "before") or 2**62
    rows = console.warehouse.ask(_VERSIONS, {"policy": line, "before": before}, remembered=2)
    states = console.warehouse.ask(_STATES, {"policy": line}, remembered=2)
    running = {
        row["version"]: row["robots"] for row in console.warehouse.ask(_RUNNING, {"policy": line}, remembered=2)
    }
    newest = max((row["version"] for row in rows), default=0) if before == 2**62 else 2**62
    state = states[0] if states else None
    return {
        "line": line,
        "rows": [
            {**row, "role": role_of(state, row["version"], newest), "robots": running.get(row["version"], 0)}
            for row in rows[:50]
        ],
        "older": rows[49]["version"] if len(rows) > 50 else None,
        "state": state,
        "states": states,
    }


def policy(request: Request) -> Response:
    """One version's page."""
    bound = _version(request)
    console = console_of(request)
    rows = console.warehouse.ask(_ONE, bound)
    if not rows:
        raise Trouble(
            f"There is no version {bound['version']} of {bound['policy']}.", "Pick one from the list.", 404
        )
    children = [row["version"] for row in console.warehouse.ask(_CHILDREN, bound, remembered=5)]
    return page(
        request,
        "policy.html",
        title=f"{bound['policy']} v{bound['version']}",
        version=rows[0],
        children=children,
        config=_pretty(rows[0]["config"]),
    )


@panel("panels/made_of.html")
def made_of(request: Request) -> dict[str, Any]:
    """Which episodes made it."""
    warehouse, bound = console_of(request).warehouse, _version(request)
    return {
        "groups": warehouse.ask(_MADE_OF, bound, remembered=60),
        "drawn": warehouse.ask(_MOST_DRAWN, bound, remembered=60),
        "version": bound["version"],
        "line": bound["policy"],
    }


@panel("panels/did.html")
def did(request: Request) -> dict[str, Any]:
    """How the episodes went in which it acted, and which robots loaded it."""
    warehouse, bound = console_of(request).warehouse, _version(request)
    return {
        "rows": warehouse.ask(_DID, bound, remembered=10),
        "swaps": warehouse.ask(_SWAPPED, bound, remembered=10),
        "version": bound["version"],
        "line": bound["policy"],
    }


def role_of(state: Row | None, version: int, newest: int) -> str:
    """What a version is to the fleet, given the newest rollout state of its line."""
    if state is None or state["mode"] == "FOLLOW_LATEST":
        roles = ["current"] if version == newest else []
    elif version == state["current"]:
        roles = ["current"]
    elif version == state["canary"]:
        roles = [f"canary: {_rule(state)}"]
    elif version in state["queued"]:
        roles = ["waits"]
    else:
        roles = ["candidate"] if version > (state["current"] or 0) else []
    if state is not None:
        roles += [f"pinned: {robot}" for robot, pinned in _pins(state["pins"]) if pinned == version]
    return ", ".join(roles)


def _rule(state: Row) -> str:
    if state["canary_robots"]:
        return ", ".join(state["canary_robots"])
    return f"{state['canary_fraction'] or 0:.0%} of the robots"


def _pins(pins: Sequence[Any]) -> list[tuple[str, int]]:
    return [(pin["robot_id"], pin["version"]) if isinstance(pin, dict) else (pin[0], pin[1]) for pin in pins]


def _version(request: Request) -> dict[str, object]:
    return {"policy": request.path_params["policy"], "version": whole(request.path_params["version"], 64)}


def _pretty(config: str) -> str:
    try:
        return json.dumps(json.loads(config), indent=2, ensure_ascii=False)
    except ValueError:
        return config
