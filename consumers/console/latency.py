"""Latency: how long experience is under way, stage by stage, and how old the policies are that act."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.console.asking import Row
from consumers.console.charts import Line, chart
from consumers.console.choices import window_of
from consumers.console.formatting import aware, duration, time_of
from consumers.console.serving import console_of, page, panel

STAGES = (
    ("captured_to_kafka", "Robot → Kafka"),
    ("kafka_to_materialized", "Kafka → stored and announced"),
    ("materialized_to_seen", "Announced → read by the learner"),
    ("seen_to_published", "Read → next policy version"),
    ("published_to_active", "Version → active on the robot"),
    ("captured_to_active", "All of it"),
)
_BY_HOUR = """
SELECT hour, stage, episodes, p50_ms, p95_ms, p99_ms
FROM latency_by_hour WHERE hour >= {since:DateTime64(0, 'UTC')} AND source = 'ONLINE'
ORDER BY stage, hour LIMIT 60000
"""
_STALENESS = """
SELECT hour, policy, episodes, newest_share, mean_versions_behind, max_versions_behind, p95_seconds_behind
FROM staleness_by_hour WHERE hour >= {since:DateTime64(0, 'UTC')} ORDER BY hour DESC, policy LIMIT 24
"""


def latency(request: Request) -> Response:
    """The page."""
    return page(request, "latency.html", title="Latency", window=window_of(request.query_params))


@panel("panels/latency.html")
def stages(request: Request) -> dict[str, Any]:
    """The newest hour in numbers, and all hours of the window as charts."""
    window = window_of(request.query_params)
    rows = _asked(request, _BY_HOUR)
    label = time_of(window.seconds)
    by_stage = {
        title: of_stage for name, title in STAGES if (of_stage := [row for row in rows if row["stage"] == name])
    }
    charts = [_drawn(title, of_stage, label) for title, of_stage in by_stage.items() if len(of_stage) > 1]
    newest = [(title, of_stage[-1]) for title, of_stage in by_stage.items()]
    return {"newest": newest, "charts": charts, "window": window}


@panel("panels/staleness.html")
def staleness(request: Request) -> dict[str, Any]:
    """How far behind the newest version the acting ones were."""
    return {"rows": _asked(request, _STALENESS), "window": window_of(request.query_params)}


def _asked(request: Request, sql: str) -> list[Row]:
    console = console_of(request)
    since = window_of(request.query_params).since(console.clock.now())
    return console.warehouse.ask(sql, {"since": since}, remembered=20)


def _drawn(title: str, rows: list[Row], label: Any) -> Any:
    return chart(
        title,
        "time taken",
        [aware(row["hour"]).timestamp() for row in rows],
        [
            Line("median", [row["p50_ms"] / 1000 for row in rows]),
            Line("95th percentile", [row["p95_ms"] / 1000 for row in rows], look="soft"),
            Line("99th percentile", [row["p99_ms"] / 1000 for row in rows], look="dashed"),
        ],
        x_title="hour in which the episodes began, UTC",
        x_label=label,
        y_label=duration,
        y_range=(0.0, max(row["p99_ms"] for row in rows) / 1000 or 0.001),
        steps=2,
    )
