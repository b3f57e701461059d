"""Grafana's dashboards ask for what there is: every query runs, every metric and label is one of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import infra.telemetry
from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.settings import Settings, _known
from schemas.events import Heartbeat, PolicyRollout, PolicyVersion
from tests.infra.clickhouse import world

GRAFANA = Path(infra.telemetry.__file__).parent / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("dashboards/*.json"))}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"le", "instance", "job"}


def panels(kind: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Dashboard, panel and target of each query of a data source."""
    return [
        (f"{name}: {panel['title']}", panel, target)
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if target["datasource"]["type"] == kind
    ]


SQL = panels("grafana-clickhouse-datasource")
PROMETHEUS = panels("prometheus")


def metrics() -> dict[str, set[str]]:
    """Our series, by the names that Prometheus stores, with their labels."""
    found: dict[str, set[str]] = {}
    for collector in list(REGISTRY._collector_to_names):
        for family in collector.collect():
            if family.name.startswith("sop_"):
                labels = set(getattr(collector, "_labelnames", ()))
                found |= {f"{family.name}{suffix}": labels for suffix in SUFFIXES[family.type]}
    return found


def expanded(sql: str, dashboard: dict[str, Any], begin: int, end: int) -> str:
    """The query as the plugin sends it: its macro for times, and each variable's present value."""
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({begin}) AND \1 <= toDateTime({end})", sql)
    for variable in dashboard["templating"]["list"]:
        sql = sql.replace(f"${{{variable['name']}}}", variable["current"]["value"])
    assert "$" not in sql
    return sql


def beats() -> list[Heartbeat]:
    """Of a robot that is there, and of forty that nobody has heard of for a week."""
    now = datetime.now(UTC)
    found = [("here", now, ("the gripper is stuck",))]
    found += [(f"gone-{number}", now - timedelta(days=7), ("the disk is full",)) for number in range(40)]
    beat = world.golden(Heartbeat)
    return [
        beat.model_copy(update={"robot_id": robot, "reported_at": at, "errors": errors, "spool_depth": 1000})
        for robot, at, errors in found
    ]


@pytest.fixture(scope="module")
def analyst(settings: Settings) -> Iterator[Client]:
    database = settings.clickhouse.model_copy(update={"database": "infra_grafana"})
    migrate(database)
    writer = connect(database)
    rollout = world.golden(PolicyRollout).model_copy(update={"written_at": world.at(100)})
    # A line far ahead of the others, whose newest versions have no episodes yet: the others are shown too.
    ahead = world.golden(PolicyVersion).model_copy(update={"policy": "ahead", "version": 500})
    world.insert(writer, [*world.everything(), rollout, ahead, *beats()], world.dead_letters())
    writer.close()
    made = connect(database, analyst=True)
    yield made
    made.close()


def test_there_are_dashboards_over_both() -> None:
    assert DASHBOARDS.keys() == {"fleet", "learning", "pipeline"}
    assert len(SQL) > 20
    assert len(PROMETHEUS) > 10


@pytest.mark.parametrize(("name", "panel", "target"), SQL, ids=[entry[0] for entry in SQL])
def test_each_query_gives_rows_of_the_shape_that_its_panel_draws(
    analyst: Client, name: str, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    begin, end = (int(world.at(minutes).timestamp()) for minutes in (-60, 600))
    sql = expanded(target["rawSql"], DASHBOARDS[name.split(":", maxsplit=1)[0]], begin, end)
    found = analyst.query(sql)
    assert found.result_rows, sql
    if panel["type"] == "timeseries":
        assert target["queryType"] == "timeseries"
        assert found.column_names[0] == "time"
        kinds = [kind.name for kind in found.column_types]
        assert kinds[0].startswith("DateTime")
        assert any(re.search(r"Float|U?Int", kind) for kind in kinds[1:]), kinds
    else:
        assert target["queryType"] == "table"


@pytest.mark.parametrize("title", ["Events in spools", "Robots in trouble"])
def test_robots_that_are_long_gone_are_in_no_trouble(analyst: Client, title: str) -> None:
    [sql] = [target["rawSql"] for name, _, target in SQL if name == f"fleet: {title}"]
    assert analyst.query("SELECT count() FROM robot_status WHERE robot_id LIKE 'gone-%'").result_rows == [(40,)]
    [(found,)] = analyst.query(sql).result_rows
    assert 1 <= found < 40_000 if title == "Events in spools" else 1 <= found < 40


@pytest.mark.parametrize(("name", "panel", "target"), PROMETHEUS, ids=[entry[0] for entry in PROMETHEUS])
def test_each_expression_names_metrics_and_labels_that_the_code_defines(
    name: str, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    known, expression = metrics(), target["expr"]
    named = re.findall(r"\bsop_\w+", expression)
    assert named
    assert set(named) <= known.keys()
    labels = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    labels |= set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    labels |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert labels <= OF_PROMETHEUS.union(*(known[metric] for metric in named))


def test_every_metric_is_on_a_panel() -> None:
    shown = {metric for _, _, target in PROMETHEUS for metric in re.findall(r"\bsop_\w+", target["expr"])}
    assert metrics().keys() == shown


def test_panels_lie_beside_each_other_and_are_explained() -> None:
    for name, dashboard in DASHBOARDS.items():
        taken: set[tuple[int, int]] = set()
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), name
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, (name, panel["title"])
            assert at["x"] + at["w"] <= 24, (name, panel["title"])
            taken |= cells
            assert panel["title"]
            assert panel["type"] == "row" or panel["description"], (name, panel["title"])


def test_no_host_and_no_secret_is_written_down_and_variables_are_settings() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/sop.yaml").read_text())["datasources"]
    known = set(_known())
    for source in sources:
        values = {**source.get("jsonData", {}), **source.get("secureJsonData", {}), "url": source.get("url")}
        for name, value in values.items():
            if name in ("protocol", "url"):
                continue
            assert value.startswith("$"), name
            assert value.removeprefix("$") in known, value
    assert {source["uid"] for source in sources} == {
        target["datasource"]["uid"] for _, _, target in (*SQL, *PROMETHEUS)
    }
    text = "".join(path.read_text() for path in GRAFANA.rglob("*") if path.is_file())
    assert not re.search(r"https?://|\d+\.\d+\.\d+\.\d+|localhost", text)
