"""A table whose key changes keeps its rows, wherever the migration is cut off, and those that come meanwhile."""

from __future__ import annotations

import pytest

from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import Migration, Step, holds, load_migrations, migrate
from infra.settings import ClickHouseSettings, Settings
from tests.infra.clickhouse import world
from tests.infra.clickhouse.world import episode

MIGRATIONS = load_migrations()
BY_HOUR = next(migration for migration in MIGRATIONS if migration.name == "0013_order_by_hour")
ROWS = (
    "SELECT (SELECT groupArray(tuple(*)) FROM (SELECT {columns} FROM episodes ORDER BY episode_id)), "
    "(SELECT groupArray(tuple(*)) FROM (SELECT * FROM training_admissions ORDER BY episode_id))"
)
KEYS = (
    "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase() "
    "AND (name LIKE 'raw_episodes%' OR name LIKE 'raw_training_admissions%') ORDER BY name"
)
NEW_KEYS = [
    ("raw_episodes", "task, start_hour, episode_id"),
    ("raw_training_admissions", "policy, start_hour, episode_id, revision, seen_at"),
]


@pytest.fixture
def before(settings: Settings, name: str) -> ClickHouseSettings:
    """A database with rows as it was before the migration."""
    made = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    migrate(made, MIGRATIONS[: BY_HOUR.number - 1])
    client = connect(made)
    world.insert(client, world.older(), known=True)
    world.insert(client, world.everything(), known=True)
    client.close()
    return made


def asked(client: Client) -> str:
    """ROWS, of the columns that there are now."""
    columns = [str(row[0]) for row in client.query("DESCRIBE TABLE episodes").result_rows]
    return ROWS.format(columns=", ".join(name for name in columns if name != "indexed_at"))


def run(client: Client, steps: list[Step]) -> None:
    for step in steps:
        if step.when is None or holds(client, step.when):
            client.command(step.sql)


@pytest.mark.parametrize("done", range(len(BY_HOUR.steps) + 1))
def test_rows_survive_a_cut_after_any_step_and_the_run_that_follows(before: ClickHouseSettings, done: int) -> None:
    client = connect(before)
    sql = asked(client)
    rows = client.query(sql).result_rows
    assert len(rows[0][0]) == len(world.episodes())
    run(client, BY_HOUR.steps[:done])
    assert migrate(before) == [migration.name for migration in MIGRATIONS[BY_HOUR.number - 1 :]]
    assert client.query(KEYS).result_rows == NEW_KEYS
    assert client.query(sql).result_rows == rows
    client.close()


def test_rows_that_are_inserted_between_the_copy_and_the_change_of_names_are_kept(
    before: ClickHouseSettings,
) -> None:
    client = connect(before)
    copied = next(n for n, step in enumerate(BY_HOUR.steps) if step.sql.startswith("EXCHANGE"))
    run(client, BY_HOUR.steps[:copied])
    world.insert(client, [episode(30)], known=True)
    migrate(before)
    assert client.query("SELECT count() FROM episodes").result_rows == [(len(world.episodes()) + 1,)]
    client.close()


@pytest.mark.parametrize("table", ["raw_episodes", "raw_training_admissions"])
def test_a_table_whose_name_was_lost_between_two_renamings_gets_it_back(
    before: ClickHouseSettings, table: str
) -> None:
    client = connect(before)
    sql = asked(client)
    rows = client.query(sql).result_rows
    made = next(n for n, step in enumerate(BY_HOUR.steps) if step.sql.startswith(f"EXCHANGE TABLES {table} "))
    run(client, BY_HOUR.steps[:made])
    client.command(f"RENAME TABLE {table} TO {table}_by_id")
    migrate(before)
    assert client.query(KEYS).result_rows == NEW_KEYS
    assert client.query(sql).result_rows == rows
    client.close()


def test_where_its_earlier_form_was_applied_it_counts_as_applied(before: ClickHouseSettings) -> None:
    migrate(before)
    [earlier] = BY_HOUR.checksums - {BY_HOUR.checksum}
    client = connect(before)
    row = [BY_HOUR.number, BY_HOUR.name, earlier]
    client.insert("schema_migrations", [row], column_names=["number", "name", "checksum"])
    assert migrate(before) == []
    client.close()


def test_a_condition_belongs_to_the_statement_below_it() -> None:
    text = "-- when: SELECT 1\nA;\n\n-- a remark\nB\nC;\n-- when: SELECT 2\n-- a remark\nD;\n"
    assert Migration(1, "0001_x", text).steps == [
        Step("A", "SELECT 1"),
        Step("B\nC", None),
        Step("D", "SELECT 2"),
    ]


def test_a_statement_whose_condition_does_not_hold_is_passed_over(settings: Settings, name: str) -> None:
    empty = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    text = "CREATE TABLE a (n Int8) ENGINE = Memory;\n"
    text += "-- when: SELECT 0\nDROP TABLE a;\n-- when: SELECT 1 WHERE 0\nDROP TABLE a;\n"
    text += "-- when: SELECT 1\nDROP TABLE a;\n"
    assert migrate(empty, [Migration(1, "0001_x", text)]) == ["0001_x"]
    client = connect(empty)
    assert client.query("SHOW TABLES NOT LIKE 'schema_lease_%'").result_rows == [("schema_migrations",)]
    client.close()
