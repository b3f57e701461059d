"""Forward-only migrations: `migrations/NNNN_name.sql`, each applied once and remembered with its checksum.

Statements end with a semicolon at a line's end. Each is written so that it may run twice (`IF NOT EXISTS`,
`CREATE OR REPLACE VIEW`): a migration that was cut off is run again from its start. A statement below a line
`-- when: SELECT …` is passed over unless that answers true (no row is not), for steps that must not be repeated.

A migration that comes to the same by a safer way names the checksum of its earlier form in a line `-- was: …`: it
counts as applied where that was. Deployments that begin at once go one after the other (`lease.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.clickhouse.client import Client, connect
from infra.clickhouse.lease import LEASE_SECONDS, deployment_lease
from infra.errors import DeploymentConflict
from infra.settings import ClickHouseSettings

MIGRATIONS = Path(__file__).parent / "migrations"


_WHEN = "-- when:"
_WAS = "-- was:"
_PATIENCE = 3600.0
"""Seconds that a statement may take: one that copies a table takes minutes."""


@dataclass(frozen=True, slots=True)
class Step:
    """A statement, and the query that must answer true for it to run; None: it always does."""

    sql: str
    when: str | None


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name, and statements."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Hex sha256 of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def checksums(self) -> set[str]:
        """Its checksum and those of its earlier forms."""
        lines = self.text.splitlines()
        return {self.checksum, *(line.removeprefix(_WAS).strip() for line in lines if line.startswith(_WAS))}

    @property
    def steps(self) -> list[Step]:
        """The file's statements in order, comments left out."""
        comment = re.compile(r"^\s*--.*$", re.M)
        lines = [line if line.startswith(_WHEN) else comment.sub("", line) for line in self.text.splitlines()]
        found = []
        for part in re.split(r";\s*$", "\n".join(lines), flags=re.M):
            conditions = [line.removeprefix(_WHEN).strip() for line in part.splitlines() if line.startswith(_WHEN)]
            if sql := comment.sub("", part).strip():
                found.append(Step(sql, conditions[0] if conditions else None))
        return found

    @property
    def statements(self) -> list[str]:
        """The file's statements without their conditions."""
        return [step.sql for step in self.steps]


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """Migrations in order.

    Raises:
        ValueError: numbers are not 1, 2, 3, ...
    """
    found = sorted(folder.glob("*.sql"))
    migrations = [Migration(int(path.name.split("_")[0]), path.stem, path.read_text()) for path in found]
    if [m.number for m in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"migrations are not numbered 1..{len(migrations)}: {[m.name for m in migrations]}")
    return migrations


def migrate(
    settings: ClickHouseSettings, migrations: list[Migration] | None = None, *, term: float = LEASE_SECONDS
) -> list[str]:
    """Apply what was not applied yet; the names of those.

    Args:
        settings: where to.
        migrations: those of the repository, if none are given.
        term: seconds to wait for a deployment that gives no sign of life.

    Raises:
        ClickHouseUnavailable: no answer in time.
        DeploymentConflict: a migration that was applied has been changed since, or another deployment goes on.
    """
    migrations = load_migrations() if migrations is None else migrations
    client = connect(settings, database="default")
    try:
        client.command(f"CREATE DATABASE IF NOT EXISTS {settings.database}")
    finally:
        client.close()
    with deployment_lease(settings, term=term) as still_ours:
        client = connect(settings.model_copy(update={"timeout": _PATIENCE}))
        try:
            return _migrate(client, migrations, still_ours)
        finally:
            client.close()


def holds(client: Client, condition: str) -> bool:
    """Whether a step's condition is true: it answers with a row, and that is true."""
    rows = client.query(condition).result_rows
    return bool(rows and rows[0][0])


def _migrate(client: Client, migrations: list[Migration], still_ours: Callable[[], None]) -> list[str]:
    client.command(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)"
        ") ENGINE = ReplacingMergeTree ORDER BY number"
    )
    applied = _applied(client)
    done = []
    for migration in migrations:
        if migration.number in applied:
            if applied[migration.number] not in migration.checksums:
                raise DeploymentConflict(
                    f"migration {migration.name} was changed after it was applied; add a new one instead"
                )
            continue
        for step in migration.steps:
            still_ours()
            if step.when is None or holds(client, step.when):
                client.command(step.sql)
        still_ours()
        client.insert(
            "schema_migrations",
            [[migration.number, migration.name, migration.checksum]],
            column_names=["number", "name", "checksum"],
        )
        done.append(migration.name)
    return done


def _applied(client: Client) -> dict[int, str]:
    rows = client.query("SELECT number, checksum FROM schema_migrations FINAL").result_rows
    return {int(number): str(checksum) for number, checksum in rows}
