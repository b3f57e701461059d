"""One episode: what is known of it, its steps as charts, its takeovers, its lineage and its payload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from consumers.console.asking import Row, Trouble
from consumers.console.charts import Chart, Line, Shade, chart
from consumers.console.choices import id_of
from consumers.console.footer import Footer, footer_of
from consumers.console.serving import Console, console_of, page, panel
from infra.clickhouse.payloads import unreadable
from infra.errors import ObjectMissing, ObjectStoreUnavailable

_ONE = "SELECT * FROM episodes WHERE episode_id = {id:UUID}"
_STEPS = """
SELECT index, actor, policy_version, state, action, proposed_action, reward
FROM episode_steps(episode_id = {id:UUID}) ORDER BY index LIMIT 20001
"""
_TAKEOVERS = """
SELECT intervention_id, operator, reason, first_step, last_step, began_at, ended_at
FROM interventions WHERE episode_id = {id:UUID} ORDER BY first_step LIMIT 500
"""
_LINEAGE = """
SELECT policy, version, how, draws, published_at
FROM lineage_of_episode(episode_id = {id:UUID}) ORDER BY policy, version, how LIMIT 500
"""
_LABELS = """
SELECT labelled_at, author, reason, verdict, excludes, counts FROM episode_labels
WHERE episode_id = {id:UUID} ORDER BY labelled_at DESC LIMIT 100
"""
# A label makes a new revision, which is stored days later: how long the recording took is what came before it.
_RECORDED = """
SELECT captured_at AS ended_at, materialized_at FROM raw_episode_latency
WHERE start_hour = toStartOfHour(UUIDv7ToDateTime({id:UUID}, 'UTC')) AND episode_id = {id:UUID}
ORDER BY revision DESC LIMIT 1
"""
_STEPS_DRAWN = 20_000
_CHUNK = 1 << 20


def episode(request: Request) -> Response:
    """The page."""
    found = _known(request)
    stored = _stored_after(request, found)
    title = f"{found['task']} on {found['robot_id']}"
    return page(request, "episode.html", title=title, episode=found, stored_after=stored)


@panel("panels/steps.html")
def steps(request: Request) -> dict[str, Any]:
    """State, action and reward over the steps; what a human did is shaded."""
    found = _known(request)
    try:
        rows = console_of(request).warehouse.ask(_STEPS, {"id": str(found["episode_id"])}, remembered=0)
    except Trouble as trouble:
        if unreadable(trouble.__cause__):
            raise Trouble(
                f"The payload is damaged: {found['payload_uri']}",
                "sop reconcile --deep --repair makes it anew from Kafka.",
                500,
            ) from trouble
        raise
    if found["step_count"] and not rows:
        raise Trouble(
            f"The payload is not in the object store ({found['step_count']:,} steps announced).",
            "sop reconcile --repair makes it anew from Kafka.",
            404,
        )
    footer = footer_of(console_of(request).store, found["payload_uri"], found["payload_bytes"])
    cut = len(rows) > _STEPS_DRAWN
    return {
        **charts_of(rows[:_STEPS_DRAWN], found["human_ranges"], footer),
        "cut": cut,
        "episode": found,
        "fps": found["fps"],
    }


@panel("panels/episode_takeovers.html")
def takeovers(request: Request) -> dict[str, Any]:
    """Each time that a human took over."""
    id_ = id_of(request.path_params["episode_id"])
    return {"rows": console_of(request).warehouse.ask(_TAKEOVERS, {"id": str(id_)})}


@panel("panels/episode_lineage.html")
def lineage(request: Request) -> dict[str, Any]:
    """Versions that acted in it, and versions that were made from it."""
    id_ = id_of(request.path_params["episode_id"])
    return {"rows": console_of(request).warehouse.ask(_LINEAGE, {"id": str(id_)}, remembered=10)}


@panel("panels/episode_labels.html")
def labels(request: Request) -> dict[str, Any]:
    """What people said of it afterwards."""
    id_ = id_of(request.path_params["episode_id"])
    return {"rows": console_of(request).warehouse.ask(_LABELS, {"id": str(id_)}), "episode_id": id_}


def payload(request: Request) -> Response:
    """The Parquet file itself, piece by piece."""
    console, found = console_of(request), _known(request)
    try:
        key = console.store.key(found["payload_uri"])
        size = console.store.size(key)
    except ValueError:
        raise Trouble(
            f"The payload is in another bucket: {found['payload_uri']}", "Set SOP_S3__BUCKET to that one.", 404
        ) from None
    except ObjectMissing:
        raise Trouble(
            f"There is no object {found['payload_uri']}.", "sop reconcile says what else is missing.", 404
        ) from None
    except ObjectStoreUnavailable:
        raise Trouble(
            "The object store does not answer.", "Start the servers (sop stack up), or set SOP_S3__ENDPOINT_URL."
        ) from None
    headers = {
        "Content-Disposition": f'attachment; filename="{found["episode_id"]}.parquet"',
        "Content-Length": str(size),
    }
    return StreamingResponse(
        _pieces(console, key, size), media_type="application/vnd.apache.parquet", headers=headers
    )


def charts_of(rows: Sequence[Row], human_ranges: Sequence[Any], footer: Footer) -> dict[str, Any]:
    """Charts of an episode's steps: one of the reward, one for each dimension of action and state.

    Args:
        rows: as the view `episode_steps` has them, by index.
        human_ranges: first and last index of each stretch under human control.
        footer: names the elements of the vectors.
    """
    shades = [Shade(*_ends(each), label="a human acted") for each in human_ranges]
    x = [float(row["index"]) for row in rows]
    return {
        "reward": [_strip("Reward", x, [Line("reward", [row["reward"] for row in rows])], shades)] if rows else [],
        "actions": _dimensions("action", rows, x, shades, footer.names.get("action", ())),
        "states": _dimensions("state", rows, x, shades, footer.names.get("state", ())),
        "cameras": footer.others,
    }


def _ends(each: Any) -> tuple[float, float]:
    first, last = (each["first"], each["last"]) if isinstance(each, dict) else each
    return float(first) - 0.5, float(last) + 0.5


def _dimensions(
    column: str, rows: Sequence[Row], x: list[float], shades: list[Shade], names: Sequence[str]
) -> list[Chart]:
    width = max((len(row[column]) for row in rows), default=0)
    proposed = column == "action"
    found = []
    for place in range(width):
        lines = [Line("executed" if proposed else column, [_at(row[column], place) for row in rows])]
        wished = [_at(row["proposed_action"], place) for row in rows] if proposed else []
        if any(value is not None for value in wished):
            lines.append(Line("the policy would have done", wished, look="dashed"))
        title = names[place] if place < len(names) else f"{column} {place}"
        found.append(_strip(title, x, lines, shades))
    return found


def _at(vector: Sequence[float], place: int) -> float | None:
    if place >= len(vector):
        return None
    value = float(vector[place])
    return value if value - value == 0 else None  # neither NaN nor infinite


def _strip(title: str, x: list[float], lines: list[Line], shades: list[Shade]) -> Chart:
    return chart(title, "", x, lines, x_title="step", x_label=lambda v: f"{v:.0f}", shades=shades, steps=2)


def _known(request: Request) -> Row:
    id_ = id_of(request.path_params["episode_id"])
    rows = console_of(request).warehouse.ask(_ONE, {"id": str(id_)}, remembered=5)
    if not rows:
        raise Trouble(
            f"There is no episode {id_}.",
            "If it has just ended, it may not be indexed yet: wait a second. Else pick one from the list.",
            404,
        )
    return rows[0]


def _stored_after(request: Request, found: Row) -> float | None:
    """Seconds from the episode's end until it was stored; None if it was labelled and nobody knows any more."""
    rows = [found]
    if found["labels"]:
        bound = {"id": str(found["episode_id"])}
        rows = console_of(request).warehouse.ask(_RECORDED, bound, remembered=60)
    return (rows[0]["materialized_at"] - rows[0]["ended_at"]).total_seconds() if rows else None


def _pieces(console: Console, key: str, size: int) -> Iterator[bytes]:
    for begin in range(0, size, _CHUNK):
        yield bytes(console.store.get_range(key, begin, min(_CHUNK, size - begin)))
