"""Every indexed event becomes rows whose columns its table has."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.rows import rows_of
from infra.clickhouse.migrate import load_migrations
from schemas.events import EpisodeDraws, Event, Step, TrainingLineage
from schemas.topics import INDEX_TOPICS, TOPICS
from tests.consumers.robots import Robot, uuid7
from tests.schemas.strategies import events_of

INDEXED = [event for name in INDEX_TOPICS if (event := TOPICS[name].event)]


def columns() -> dict[str, set[str]]:
    """Columns by table, as the migrations declare them."""
    text = "\n".join(migration.text for migration in load_migrations())
    found = {}
    for table, body in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)\n\((.*?)\n\)", text, re.S):
        found[table] = set(re.findall(r"^    (\w+) ", body, re.M))
    for table, body in re.findall(r"ALTER TABLE (\w+)\s(.*?);", text, re.S):
        if added := re.findall(r"ADD COLUMN IF NOT EXISTS (\w+) ", body):  # else it is about something else
            found[table] |= set(added)
    return found


@pytest.mark.parametrize("record", INDEXED)
def test_rows_fill_columns_that_exist(record: str) -> None:
    tables = columns()

    @settings(deadline=None, max_examples=20)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        event: Event = data.draw(events_of(record))
        if "episode_id" in type(event).model_fields:
            event = event.model_copy(update={"episode_id": uuid7(), "interventions": (), "labels": ()})
        if "admitted" in type(event).model_fields:
            event = event.model_copy(update={"admitted": ()})
        if isinstance(event, TrainingLineage):
            event = event.model_copy(update={"episodes": (EpisodeDraws(episode_id=uuid7(), revision=1, draws=2),)})
        rows = rows_of(event, 0, 7)
        assert rows
        for row in rows:
            assert set(row.values) <= tables[row.table]

    check()


def test_an_event_that_no_table_holds_is_refused() -> None:
    step: Step = Robot().step(uuid7(), 0)
    with pytest.raises(TypeError, match="Step"):
        rows_of(step, 0, 0)
