"""Migrations are applied once, in order, and never changed under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.clickhouse.client import ClickHouseError, connect
from infra.clickhouse.migrate import MIGRATIONS, Migration, holds, load_migrations, migrate
from infra.errors import DeploymentConflict
from infra.settings import ClickHouseSettings, Settings

FIRST = Migration(
    1, "0001_a", "-- A comment; with a semicolon.\nCREATE TABLE IF NOT EXISTS a (n Int8)\nENGINE = Memory;\n"
)
SECOND = Migration(2, "0002_b", "CREATE TABLE IF NOT EXISTS b (n Int8) ENGINE = Memory;\n")


@pytest.fixture
def empty(settings: Settings, name: str) -> ClickHouseSettings:
    """A database that does not exist yet."""
    return settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})


def tables(settings: ClickHouseSettings) -> set[str]:
    """Tables of the database, but for journal and lease."""
    rows = (
        connect(settings)
        .query(f"SELECT name FROM system.tables WHERE database = '{settings.database}'")
        .result_rows
    )
    return {str(name) for (name,) in rows if not str(name).startswith("schema_")}


def test_what_was_not_applied_yet_is_applied_in_order_and_once(empty: ClickHouseSettings) -> None:
    assert migrate(empty, [FIRST]) == ["0001_a"]
    assert migrate(empty, [FIRST, SECOND]) == ["0002_b"]
    assert migrate(empty, [FIRST, SECOND]) == []
    assert tables(empty) == {"a", "b"}
    journal = "SELECT number, name, checksum FROM schema_migrations FINAL ORDER BY number"
    assert connect(empty).query(journal).result_rows == [(m.number, m.name, m.checksum) for m in (FIRST, SECOND)]


def test_a_migration_that_was_changed_after_it_was_applied_is_refused_and_no_later_one_runs(
    empty: ClickHouseSettings,
) -> None:
    migrate(empty, [FIRST])
    changed = Migration(1, "0001_a", FIRST.text + "\n")
    with pytest.raises(DeploymentConflict, match="0001_a was changed after it was applied"):
        migrate(empty, [changed, SECOND])
    assert tables(empty) == {"a"}


def test_a_migration_that_was_cut_off_is_run_again_from_its_start(empty: ClickHouseSettings) -> None:
    broken = Migration(1, "0001_a", FIRST.text + "CREATE NONSENSE;\n")
    with pytest.raises(ClickHouseError):
        migrate(empty, [broken, SECOND])
    assert tables(empty) == {"a"}
    mended = Migration(1, "0001_a", FIRST.text + SECOND.text.replace(" b ", " c "))
    assert migrate(empty, [mended, SECOND]) == ["0001_a", "0002_b"]
    assert tables(empty) == {"a", "b", "c"}


def test_every_statement_of_ours_may_run_twice(empty: ClickHouseSettings) -> None:
    migrate(empty)
    client = connect(empty)
    before = tables(empty)
    for migration in load_migrations():
        for step in migration.steps:
            if step.when is None or holds(client, step.when):
                client.command(step.sql)
    assert tables(empty) == before


def test_comments_are_no_statements_and_semicolons_inside_lines_do_not_part_them() -> None:
    assert FIRST.statements == ["CREATE TABLE IF NOT EXISTS a (n Int8)\nENGINE = Memory"]
    text = "SELECT ';' AS a, 1;\n  -- no; statement\nSELECT 2 ;  \n\n"
    assert Migration(1, "0001", text).statements == ["SELECT ';' AS a, 1", "SELECT 2"]


def test_files_are_numbered_without_gaps(tmp_path: Path) -> None:
    assert [m.number for m in load_migrations()] == list(range(1, len(list(MIGRATIONS.iterdir())) + 1))
    (tmp_path / "0001_a.sql").write_text("SELECT 1;\n")
    (tmp_path / "0003_b.sql").write_text("SELECT 1;\n")
    with pytest.raises(ValueError, match=r"not numbered 1\.\.2: \['0001_a', '0003_b'\]"):
        load_migrations(tmp_path)
