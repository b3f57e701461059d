"""What is asked: `queries.yaml` beside this file, with the plain query to each, and every panel of Grafana's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ALL_MS, ONE_TASK_MS = 1000, 200
"""Targets: of any dashboard query, and of those about one task or one episode."""


@dataclass(frozen=True)
class Question:
    """`view` and `plain`, if there is one, give the same rows, in any order."""

    name: str
    view: str
    plain: str | None = None
    one_task: bool = False

    @property
    def target_ms(self) -> int:
        """How long it may take."""
        return ONE_TASK_MS if self.one_task else ALL_MS


GRAFANA = Path(__file__).parents[2] / "infra" / "deploy" / "grafana" / "dashboards"
_GENERATED_UNTIL = "2026-01-01 00:00:00"
_EXPIRES = ("robot_health_by_hour", "dead_letters", "training_progress", "policy_rollouts")
"""Views of rows that are kept for a while only, and are therefore generated up to now."""
_BACK = {"6h": 6, "24h": 24}


def panels() -> list[Question]:
    """The queries of all panels over ClickHouse, with the dashboard's own window and variables."""
    found = []
    for path in sorted(GRAFANA.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                if "rawSql" in target:
                    sql = _expanded(target["rawSql"], dashboard)
                    found.append(Question(f"Grafana, {path.stem}: {panel['title']}", sql))
    return found


def _expanded(sql: str, dashboard: dict[str, Any]) -> str:
    expires = any(view in sql for view in _EXPIRES)
    until = "now64(3, 'UTC')" if expires else f"toDateTime64('{_GENERATED_UNTIL}', 3, 'UTC')"
    hours = _BACK[dashboard["time"]["from"].removeprefix("now-")] if "$__timeFilter" in sql else 0
    window = rf"\1 >= {until} - INTERVAL {hours} HOUR AND \1 <= {until}"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", window, sql)
    for variable in dashboard["templating"]["list"]:
        sql = sql.replace(f"${{{variable['name']}}}", variable["current"]["value"])
    return sql


_ASKED = [Question(**entry) for entry in yaml.safe_load(Path(__file__).with_name("queries.yaml").read_text())]
QUESTIONS = _ASKED + panels()
