"""`sop reindex` on real servers: tables that were emptied hold the same as before."""

from __future__ import annotations

from consumers.audit.reindex import reindex_from_objects, reindex_from_stream
from infra.clickhouse.client import connect
from tests.consumers.integration.pipeline import Pipeline

VIEWS = {
    "episodes": "* EXCEPT (indexed_at)",
    "interventions": "*",
    "dead_letters": "*",
}
ONLY_ON_THE_STREAM = "* EXCEPT (indexed_at, materialized_at, stream_offset)"

Rows = list[tuple[object, ...]]


def rows(pipeline: Pipeline, view: str, columns: str) -> Rows:
    return pipeline.query(f"SELECT {columns} FROM {view} ORDER BY ALL")


def everything(pipeline: Pipeline) -> dict[str, Rows]:
    return {view: rows(pipeline, view, columns) for view, columns in VIEWS.items()}


def empty(pipeline: Pipeline) -> None:
    client = connect(pipeline.settings.clickhouse)
    for view in VIEWS:
        client.command(f"TRUNCATE TABLE raw_{view}")
    client.close()
    assert rows(pipeline, "episodes", "*") == []


def test_the_stream_and_the_object_store_each_give_the_same_rows_as_before(pipeline: Pipeline) -> None:
    before = everything(pipeline)
    assert all(before[view] for view in ("episodes", "interventions", "dead_letters"))
    facts = rows(pipeline, "episodes", ONLY_ON_THE_STREAM)

    empty(pipeline)
    done = reindex_from_objects(pipeline.settings)
    assert (done.rows["raw_episodes"], done.skipped) == (len(facts), {})
    assert rows(pipeline, "episodes", ONLY_ON_THE_STREAM) == facts
    assert rows(pipeline, "interventions", "*") == before["interventions"]

    # Over what came from the objects, and once more.
    for _ in range(2):
        done = reindex_from_stream(pipeline.settings)
        assert done.skipped == {}
        assert everything(pipeline) == before

    empty(pipeline)
    reindex_from_stream(pipeline.settings)
    assert everything(pipeline) == before


def test_a_damaged_object_is_passed_over_and_its_neighbours_are_not(pipeline: Pipeline) -> None:
    newest = next(event for event in pipeline.newest().values() if event.robot_id == "robot-1")
    key = pipeline.objects.key(newest.payload_uri)
    data = pipeline.objects.get(key)
    pipeline.objects.put(key, data[:-1])
    done = reindex_from_objects(pipeline.settings)
    assert done.skipped == {"unreadable": 1}
    assert done.rows["raw_episodes"] == len(pipeline.newest()) - 1
    pipeline.objects.put(key, data)
    reindex_from_stream(pipeline.settings)
