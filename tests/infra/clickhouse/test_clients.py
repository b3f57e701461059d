"""Analysts' own tools: the views are there by name, with comments, for whoever may only read."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
import sqlalchemy as sa

from infra.clickhouse.client import Client, connect
from infra.clickhouse.dictionary import load_examples
from infra.clickhouse.migrate import migrate
from infra.settings import ClickHouseSettings, Settings
from tests.infra.clickhouse import world

BY_TASK = "SELECT task, source, episodes, success_rate FROM success_by_task ORDER BY task, source"


@pytest.fixture(scope="module")
def database(settings: Settings) -> ClickHouseSettings:
    made = settings.clickhouse.model_copy(update={"database": "infra_clients"})
    migrate(made)
    writer = connect(made)
    world.insert(writer, world.everything(), world.dead_letters())
    writer.close()
    return made


@pytest.fixture(scope="module")
def analyst(database: ClickHouseSettings) -> Iterator[Client]:
    client = connect(database, analyst=True)
    yield client
    client.close()


@pytest.fixture(scope="module")
def engine(database: ClickHouseSettings) -> Iterator[sa.Engine]:
    """SQLAlchemy with the driver's dialect, which is also Superset's."""
    url = sa.URL.create(
        "clickhousedb",
        username=database.analyst_username,
        password=database.analyst_password.get_secret_value(),
        host=database.host,
        port=database.port,
        database=database.database,
    )
    made = sa.create_engine(url)
    yield made
    made.dispose()


def test_pandas_reads_every_view_that_needs_no_arguments(analyst: Client) -> None:
    sql = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View' "
    names = [row[0] for row in analyst.query(f"{sql} AND empty(parameterized_view_parameters)").result_rows]
    assert len(names) > 25
    for name in names:
        assert list(analyst.query_df(f"SELECT * FROM {name}").columns), name


def test_sqlalchemy_finds_views_columns_and_comments_by_name(engine: sa.Engine, analyst: Client) -> None:
    inspector = sa.inspect(engine)
    stored = {row[0] for row in analyst.query("SHOW TABLES LIKE 'raw_%'").result_rows}
    wanted = load_examples().keys() - {"episode_steps"}  # which is made by `sop deploy`
    assert wanted <= set(inspector.get_table_names()) - stored
    assert inspector.get_table_comment("success_by_task") == {"text": "Success of each task, with its interval."}
    columns = {column["name"]: column["comment"] for column in inspector.get_columns("success_by_task")}
    assert columns["success_low"] == "Lower end of its 95 % Wilson interval."
    assert all(columns.values())


def test_sqlalchemy_selects_from_a_view_that_it_reflected(engine: sa.Engine, analyst: Client) -> None:
    view = sa.Table("success_by_task", sa.MetaData(), autoload_with=engine)
    asked = sa.select(view.c.task, sa.func.sum(view.c.episodes)).group_by(view.c.task).order_by(view.c.task)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(asked)]
    totals = "SELECT task, sum(episodes) FROM success_by_task GROUP BY task ORDER BY task"
    assert found == analyst.query(totals).result_rows != []


def test_pandas_reads_through_sqlalchemy(engine: sa.Engine, analyst: Client) -> None:
    found = pd.read_sql(sa.text(BY_TASK), engine)
    assert found.to_numpy().tolist() == [list(row) for row in analyst.query(BY_TASK).result_rows] != []
