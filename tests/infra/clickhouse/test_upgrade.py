"""A database that is brought up to date shows what one shows that was so from the beginning."""

from __future__ import annotations

import pytest

from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import load_migrations, migrate
from infra.settings import ClickHouseSettings, Settings
from tests.infra.clickhouse import world
from tests.infra.clickhouse.test_analytics import CALLS, rows, views

RELEASED = 15
UNKNOWN_BEFORE = {
    "episodes": "indexed_at, frames_dropped",
    "data_quality_by_hour": "frames_dropped",
    "robot_boots": "first_received_at, received_at",
    "robot_status": "first_received_at, received_at",
    "outcome_days": "changed_at, summed_at",
}
"""What rows from before cannot say."""


def shown(client: Client) -> dict[str, list[str]]:
    found = {}
    for view, parameters in views(client).items():
        left_out = f"EXCEPT ({UNKNOWN_BEFORE[view]})" if view in UNKNOWN_BEFORE else ""
        sql = f"SELECT * {left_out} FROM {CALLS[view] if parameters else view}"
        found[view] = sorted(map(repr, rows(client, sql)))
    return found


@pytest.mark.parametrize("cut", [False, True])
def test_rows_from_before_are_in_every_table_that_was_added_since(
    settings: Settings, name: str, *, cut: bool
) -> None:
    old, new = (
        settings.clickhouse.model_copy(update={"database": f"{name.replace('-', '_')}_{which}"})
        for which in ("old", "new")
    )
    migrations = load_migrations()
    migrate(old, migrations[:RELEASED])
    migrate(new)
    fill(old)
    fill(new)
    if cut:  # a migration that was cut off is run again from its start
        client = connect(old)
        for migration in migrations[RELEASED:]:
            for step in migration.steps[:-1]:
                client.command(step.sql)
        client.close()
    migrate(old)
    then, now = connect(old), connect(new)
    assert shown(then) == shown(now)
    then.close()
    now.close()


def fill(database: ClickHouseSettings) -> None:
    client = connect(database)
    for events in (world.older(), world.everything()):
        world.insert(client, events, known=True)
    world.insert(client, [], world.dead_letters())
    client.close()
