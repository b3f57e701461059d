"""However often a row is inserted, and in whatever order: analysts see it once, and its newest state."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from consumers.rows import TableRow, columns_of, rows_of
from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.settings import ClickHouseSettings, Settings
from schemas.events import EpisodeMaterialized, Event, Heartbeat, PolicyActivated, TrainingProgress
from schemas.topics import INDEX_TOPICS, TOPICS
from tests.schemas.golden import EXAMPLES

NOW = datetime.now(UTC)
"""Old status rows expire, so that the examples' own times would not do."""

DEAD_LETTER = TableRow(
    "raw_dead_letters",
    {
        "topic": "robot-steps",
        "partition": 3,
        "offset": 17,
        "robot_id": "arm-07",
        "reason": "undecodable",
        "error": "not a step v1",
        "value": b"\xff\x00",
        "appended_at": NOW,
    },
)


@pytest.fixture(scope="module")
def database(settings: Settings) -> ClickHouseSettings:
    made = settings.clickhouse.model_copy(update={"database": "infra_views"})
    migrate(made)
    return made


@pytest.fixture
def client(database: ClickHouseSettings) -> Iterator[Client]:
    """The writer, on empty tables."""
    made = connect(database)
    yield made
    for table in raw_tables(made):
        made.command(f"TRUNCATE TABLE {table}")
    made.close()


@pytest.fixture
def analyst(database: ClickHouseSettings) -> Client:
    return connect(database, analyst=True)


def raw_tables(client: Client) -> list[str]:
    """The stored ones."""
    return [str(row[0]) for row in client.query("SHOW TABLES LIKE 'raw_%'").result_rows]


def examples(kind: type[Event]) -> list[Any]:
    """Golden events of one type, as if they happened now."""
    found = []
    for stored in EXAMPLES:
        if isinstance(stored.event, kind):
            fields = {"reported_at", "activated_at"} & type(stored.event).model_fields.keys()
            found.append(stored.event.model_copy(update=dict.fromkeys(fields, NOW)))
    return found


def all_rows() -> dict[str, list[TableRow]]:
    """Rows of every example that the index stores, and of a dead letter, by table."""
    events = [event for topic in INDEX_TOPICS if (event := TOPICS[topic].event)]
    found: dict[str, list[TableRow]] = defaultdict(list, {"raw_dead_letters": [DEAD_LETTER]})
    for event in [e for e in examples(Event) if e.record in events]:
        for row in rows_of(event, 3, 41):
            found[row.table].append(row)
    return found


def insert(client: Client, rows: list[TableRow], **options: Any) -> None:
    """One insert, as the index makes it."""
    client.insert(rows[0].table, [list(r.values.values()) for r in rows], column_names=columns_of(rows), **options)


def count(client: Client, view: str) -> int:
    """Rows that an analyst counts."""
    return int(client.query(f"SELECT count() FROM {view}").result_rows[0][0])


def episode(**changes: object) -> EpisodeMaterialized:
    """An episode with interventions, changed as asked."""
    found: EpisodeMaterialized = next(e for e in examples(EpisodeMaterialized) if e.interventions)
    return found.model_copy(update=changes)


def test_every_table_has_a_view_every_view_an_explanation_and_nothing_adds_up_inserts(client: Client) -> None:
    sql = "SELECT name, engine, comment FROM system.tables WHERE database = currentDatabase()"
    found = {name: (engine, comment) for name, engine, comment in client.query(sql).result_rows}
    views = {name for name, (engine, _) in found.items() if engine == "View"}
    feeds = {name for name, (engine, _) in found.items() if engine == "MaterializedView"}
    assert all(name.endswith("_feed") for name in feeds)
    stored = {name for name in found.keys() - views - feeds if not name.startswith("schema_")}
    assert {name.removeprefix("raw_") for name in stored} <= views
    assert all(name.startswith("raw_") for name in stored)
    aggregated = {name for name in stored if found[name][0] == "AggregatingMergeTree"}
    assert aggregated == {"raw_robot_boots", "raw_outcome_days"}
    assert {found[name][0] for name in stored - aggregated} == {"ReplacingMergeTree"}
    sql = "SELECT table, type FROM system.columns WHERE database = currentDatabase()"
    kinds = [kind for table, kind in client.query(sql).result_rows if table in aggregated and "Aggregate" in kind]
    assert len(kinds) == 5
    assert all(re.match(r"SimpleAggregateFunction\((min|max),", kind) for kind in kinds), "twice is once"
    assert {view for view in views if not found[view][1].endswith(".")} == set()
    fed = {
        "raw_episode_latency",
        "raw_robot_boots",
        "raw_training_reports",
        "raw_outcome_days",
        "raw_outcome_sums",
    }
    assert set(all_rows()) == stored - fed, "the examples reach every table"


def test_rows_inserted_twice_show_once_in_every_view(client: Client, analyst: Client) -> None:
    rows = all_rows()
    once: dict[str, list[str]] = {}
    for attempt in range(2):
        for table, found in rows.items():
            insert(client, found)
            view = table.removeprefix("raw_")
            shown = sorted(map(repr, analyst.query(f"SELECT *{_but_when(table)} FROM {view}").result_rows))
            assert shown, table
            assert once.setdefault(table, shown) == shown, f"attempt {attempt}"
            assert len(shown) == len({repr(row) for row in shown}), table
    newest = {event.episode_id: event for event in sorted(examples(EpisodeMaterialized), key=lambda e: e.revision)}
    counted = [event for event in newest.values() if not event.excluded]
    assert len(counted) < len(newest)
    assert count(analyst, "episodes") == len(newest)
    assert count(analyst, "episode_outcomes") == len(counted)
    client.command("OPTIMIZE TABLE raw_episodes FINAL")
    assert count(analyst, "episodes") == len(newest)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1, 3, 2)], ids=str)
def test_the_highest_revision_shows_whatever_the_order_of_inserts(
    client: Client, analyst: Client, order: tuple[int, ...]
) -> None:
    for revision in order:
        span = episode().interventions[0].model_copy(update={"last_step": revision})
        rows = rows_of(episode(revision=revision, step_count=10 * revision, interventions=(span,)), 0, revision)
        for row in rows:
            insert(client, [row])
    assert analyst.query("SELECT revision, step_count FROM episodes").result_rows == [(3, 30)]
    assert analyst.query("SELECT revision, last_step FROM interventions").result_rows == [(3, 3)]


def test_no_partition_and_no_time_depends_on_the_time_zone_of_a_server(client: Client) -> None:
    """Else an episode inserted through two servers lies in two months, and FINAL does not look across them."""
    keys = client.query(
        "SELECT name, partition_key FROM system.tables WHERE database = currentDatabase()"
    ).result_rows
    by_id = {name: key for name, key in keys if "episode_id" in key}
    assert by_id == dict.fromkeys(
        (
            "raw_episodes",
            "raw_episode_latency",
            "raw_interventions",
            "raw_training_admissions",
            "raw_training_lineage",
        ),
        "toYYYYMM(UUIDv7ToDateTime(episode_id, 'UTC'))",
    )
    columns = client.query(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase()"
    ).result_rows
    assert [row for row in columns if "DateTime" in row[2] and "'UTC'" not in row[2]] == []


def test_episodes_lie_in_the_month_of_their_id(client: Client) -> None:
    for month in (1, 2):
        began = int(datetime(2026, month, 1, tzinfo=UTC).timestamp() * 1000)
        for number, moment in enumerate((began - 1, began)):
            unique = str(UUID(int=(moment << 80) | (7 << 76) | (0b10 << 62) | number))
            insert(client, rows_of(episode(episode_id=unique), 0, 0)[:1])
    sql = "SELECT partition, sum(rows) FROM system.parts WHERE table = 'raw_episodes' AND active"
    found = client.query(
        f"{sql} AND database = currentDatabase() GROUP BY partition ORDER BY partition"
    ).result_rows
    assert found == [("202512", 1), ("202601", 2), ("202602", 1)]


def test_outcomes_answer_the_question_that_the_fleet_is_run_for(client: Client, analyst: Client) -> None:
    for number, (success, versions) in enumerate([(True, (3, 4)), (False, (4,)), (None, (4,)), (True, ())]):
        unique = str(UUID(int=UUID(episode().episode_id).int + number))
        changed = episode(episode_id=unique, success=success, policy_versions=versions, human_step_count=number)
        for row in rows_of(changed, 0, number):
            insert(client, [row])
    sql = "SELECT task, policy_version, count(), avg(success) FROM episode_outcomes GROUP BY ALL"
    assert analyst.query(f"{sql} ORDER BY policy_version").result_rows == [
        ("push", 0, 1, 1.0),
        ("push", 4, 3, 0.5),
    ]
    sql = "SELECT autonomous, count() FROM episode_outcomes GROUP BY ALL ORDER BY autonomous"
    assert [(bool(flag), n) for flag, n in analyst.query(sql).result_rows] == [(False, 3), (True, 1)]


def test_the_newest_heartbeat_is_the_last_that_came_of_the_newest_boot_whatever_its_clock_says(
    client: Client, analyst: Client
) -> None:
    beat = examples(Heartbeat)[0]
    night = datetime(1970, 1, 1, 3, tzinfo=UTC)
    said = [  # boot, by the robot's clock, by the broker's
        (1, NOW, NOW - timedelta(hours=10)),
        (2, NOW + timedelta(hours=9), NOW - timedelta(hours=9)),
        (2, night, NOW - timedelta(hours=8)),
    ]
    rows = [
        row
        for depth, (boot, reported, came) in enumerate(said)
        for row in rows_of(
            beat.model_copy(update={"boot_epoch": boot, "reported_at": reported, "spool_depth": depth}), 0, 0, came
        )
    ]
    rows += rows_of(beat.model_copy(update={"robot_id": "other", "spool_depth": 4}), 0, 0)
    for order in (rows, rows[::-1]):
        for row in order:
            insert(client, [row])
        client.command("OPTIMIZE TABLE raw_robot_status FINAL")  # what had expired would be gone
        sql = "SELECT robot_id, spool_depth, reported_at FROM robot_status ORDER BY robot_id"
        found = analyst.query(sql, tz_mode="aware").result_rows
        assert found == [(beat.robot_id, 2, night), ("other", 4, NOW)]
        sql = "SELECT sum(heartbeats), max(hour) > now() - INTERVAL 1 DAY FROM robot_health_by_hour"
        assert analyst.query(sql).result_rows == [(4, True)]
    sql = "SELECT boot_epoch FROM robot_boots WHERE robot_id != 'other' ORDER BY boot_epoch"
    assert analyst.query(sql).result_rows == [(1,), (2,)]


def test_the_earliest_admission_of_a_revision_counts(client: Client, analyst: Client) -> None:
    progress = next(event for event in examples(TrainingProgress) if event.admitted)
    for hours in (2, 1, 3):
        late = progress.admitted[0].model_copy(update={"seen_at": NOW + timedelta(hours=hours)})
        for row in rows_of(progress.model_copy(update={"admitted": (late,)}), 0, 0):
            insert(client, [row])
    ((seen_at,),) = analyst.query("SELECT seen_at FROM training_admissions").result_rows
    assert seen_at.replace(tzinfo=UTC) == NOW + timedelta(hours=1)


def test_what_an_algorithm_tells_of_its_updates_is_found_by_its_name(client: Client, analyst: Client) -> None:
    told = [event for event in examples(TrainingProgress) if event.learner_step and event.updates_skipped]
    for event in told:
        insert(client, rows_of(event, 0, 0)[:1])
    sql = "SELECT metrics['learning_rate'], metrics['unheard of'] FROM training_progress WHERE notEmpty(metrics)"
    assert analyst.query(sql).result_rows == [(0.0003, 0.0)]


def test_a_robot_that_returns_to_a_version_has_activated_it_twice(client: Client, analyst: Client) -> None:
    event = examples(PolicyActivated)[0]
    again = event.model_copy(update={"activated_at": NOW + timedelta(seconds=1)})
    for activation in (event, again, event):
        insert(client, rows_of(activation, 0, 0))
    assert count(analyst, "policy_activations") == 2


def _but_when(table: str) -> str:
    """Leave out when a row was inserted."""
    return " EXCEPT (indexed_at)" if table == "raw_episodes" else ""
