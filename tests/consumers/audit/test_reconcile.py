"""`sop reconcile` on real servers: what was taken away, doubled or put there by hand is named, and mended."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.httpclient import HttpClient

from consumers.audit.findings import Finding, Kind, Report, Where
from consumers.audit.reconcile import Options, reconcile
from consumers.dead_letters import place_of
from consumers.graveyard import DeadLetterLog
from infra.clickhouse.client import connect
from infra.clickhouse.summing import sum_days
from infra.kafka import LogReader
from tests.consumers.audit.graves import put_tombstone
from tests.consumers.integration.pipeline import Pipeline


def audit(pipeline: Pipeline, **options: object) -> Report:
    return reconcile(pipeline.settings, Options(**options))  # type: ignore[arg-type]


def kinds(report: Report) -> list[tuple[Where, Kind]]:
    return sorted((f.where, f.kind) for f in report.findings if f.mended is None)


def the_one(report: Report, where: Where, kind: Kind) -> Finding:
    [finding] = [f for f in report.findings if (f.where, f.kind) == (where, kind)]
    return finding


def change(pipeline: Pipeline, sql: str, **values: object) -> None:
    client = connect(pipeline.settings.clickhouse)
    client.command(sql, parameters=values, settings={"mutations_sync": 1})
    client.close()


def test_after_traffic_everything_is_accounted_for_and_open_episodes_are_called_open(pipeline: Pipeline) -> None:
    report = audit(pipeline, deep=True)
    assert [finding.name for finding in report.findings] == []
    assert report.clean
    assert list(report.open.values()) == ["robot open, 5 events so far"]
    assert report.checked["episodes"] == report.checked["rows"] == 10
    assert report.checked["announcements"] == 11
    assert report.checked["intervention rows"] == pipeline.query("SELECT count() FROM interventions")[0][0] != 0
    assert report.checked["robot records"] > len(pipeline.sent)


def test_an_object_and_a_row_that_were_deleted_are_named_and_mended(pipeline: Pipeline) -> None:
    events = {event.robot_id: event for event in pipeline.newest().values()}
    gone, forgotten = events["robot-1"], events["robot-2"]
    data = pipeline.objects.get(pipeline.objects.key(gone.payload_uri))
    pipeline.objects.delete(pipeline.objects.key(gone.payload_uri))
    delete = "ALTER TABLE raw_episodes DELETE WHERE episode_id = {id:UUID}"
    change(pipeline, delete, id=forgotten.episode_id)
    change(pipeline, "ALTER TABLE raw_dead_letters DELETE WHERE reason = 'wrong_length'")
    report = audit(pipeline)
    assert kinds(report) == sorted(
        [(Where.OBJECTS, Kind.MISSING), (Where.ROWS, Kind.MISSING), (Where.DEAD_LETTER_ROWS, Kind.MISSING)]
    )
    assert the_one(report, Where.OBJECTS, Kind.MISSING).key == pipeline.objects.key(gone.payload_uri)
    assert forgotten.episode_id in the_one(report, Where.ROWS, Kind.MISSING).name
    report = audit(pipeline, repair=True)
    assert report.clean, [finding.text for finding in report.findings]
    assert pipeline.objects.get(pipeline.objects.key(gone.payload_uri)) == data
    assert audit(pipeline, deep=True).findings == []


def summed(pipeline: Pipeline) -> None:
    """Work out the sums of all days, as the index does once they are quiet."""
    client = connect(pipeline.settings.clickhouse)
    while sum_days(client, quiet=0):
        pass
    client.close()


class KilledError(Exception):
    """The process that repaired is gone."""


FORGERIES = {
    "robot-3": ("episode_id", "generateUUIDv7()"),
    "robot-4": ("revision", "9"),
    "robot-5": ("step_count", "999"),
}
"""Column and value by the robot whose row is taken as a pattern."""


def test_rows_that_nobody_announced_are_named_and_taken_away_or_replaced(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the first repair is killed when it has deleted them: no sum is left as it was before."""
    sums = "SELECT sum(episodes), sum(steps) FROM outcome_sums"
    before = pipeline.query(sums)
    events = {event.robot_id: event for event in pipeline.newest().values()}
    table = "FROM system.columns WHERE database = currentDatabase() AND table = 'raw_episodes' "
    table += "AND default_kind = '' ORDER BY position"
    names = [str(name) for (name,) in pipeline.query(f"SELECT name {table}")]
    for robot, (column, value) in FORGERIES.items():
        chosen = ", ".join(value if name == column else name for name in names)
        source = f"SELECT {chosen} FROM raw_episodes FINAL WHERE robot_id = '{robot}'"
        change(pipeline, f"INSERT INTO raw_episodes ({', '.join(names)}) {source}")
    report = audit(pipeline)
    assert kinds(report) == [(Where.ROWS, Kind.ORPHANED), (Where.ROWS, Kind.WRONG), (Where.ROWS, Kind.WRONG)]
    named = {finding.episode_id for finding in report.findings if finding.kind is Kind.WRONG}
    assert named == {events["robot-4"].episode_id, events["robot-5"].episode_id}
    summed(pipeline)
    assert pipeline.query(sums) != before
    command = HttpClient.command

    def killed_after_it(client: HttpClient, sql: str, *given: Any, **more: Any) -> Any:
        answer = command(client, sql, *given, **more)
        if sql.startswith("ALTER TABLE raw_episodes DELETE"):
            raise KilledError
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(HttpClient, "command", killed_after_it)
        with pytest.raises(KilledError):
            audit(pipeline, repair=True)
    assert pipeline.query("SELECT countIf(summed) FROM outcome_days") == [(0,)], "what is left is read"
    assert audit(pipeline, repair=True).clean
    assert audit(pipeline).findings == []
    assert pipeline.query(sums) == before
    summed(pipeline)
    assert pipeline.query(sums) == before


def test_interventions_that_are_gone_or_were_never_announced_are_named_and_mended(pipeline: Pipeline) -> None:
    before = pipeline.query("SELECT * FROM interventions ORDER BY intervention_id")
    columns = "episode_id, intervention_id, revision, robot_id, task, first_step, began_at"
    for episode, source in (("episode_id", "robot-1"), ("generateUUIDv7()", "robot-2")):
        chosen = f"{episode}, generateUUIDv7(), {columns.partition('intervention_id, ')[2]}"
        rows = f"SELECT {chosen} FROM raw_interventions FINAL WHERE robot_id = '{source}'"
        change(pipeline, f"INSERT INTO raw_interventions ({columns}) {rows}")
    for robot in ("robot-3", "robot-4"):
        change(pipeline, "ALTER TABLE raw_interventions DELETE WHERE robot_id = {robot:String}", robot=robot)
    rows = "SELECT * REPLACE (revision + 7 AS revision) FROM raw_interventions FINAL WHERE robot_id = 'robot-5'"
    change(pipeline, f"INSERT INTO raw_interventions {rows}")
    report = audit(pipeline)
    lines = [Kind.MISSING, Kind.MISSING, Kind.ORPHANED, Kind.ORPHANED, Kind.WRONG]
    assert kinds(report) == [(Where.INTERVENTION_ROWS, kind) for kind in lines]
    assert audit(pipeline, repair=True).clean
    assert audit(pipeline).findings == []
    assert pipeline.query("SELECT * FROM interventions ORDER BY intervention_id") == before


def test_an_orphaned_episode_goes_together_with_its_interventions(pipeline: Pipeline) -> None:
    [(made,)] = pipeline.query("SELECT generateUUIDv7()")
    before = pipeline.query("SELECT (SELECT count() FROM episodes), (SELECT count() FROM interventions)")
    for table in ("raw_episodes", "raw_interventions"):
        rows = f"SELECT * REPLACE (toUUID('{made}') AS episode_id) FROM {table} FINAL WHERE robot_id = 'robot-6'"
        change(pipeline, f"INSERT INTO {table} {rows}")
    named = [(f.where, f.kind, f.episode_id) for f in audit(pipeline).findings]
    assert named == [(where, Kind.ORPHANED, str(made)) for where in (Where.ROWS, Where.INTERVENTION_ROWS)]
    assert audit(pipeline, repair=True).clean
    counts = pipeline.query("SELECT (SELECT count() FROM episodes), (SELECT count() FROM interventions)")
    assert counts == before


def test_rows_from_the_object_store_alone_are_deleted_only_if_that_is_asked_for(pipeline: Pipeline) -> None:
    """They may be all that is left of what a lost stream announced."""
    [(made,)] = pipeline.query("SELECT generateUUIDv7()")
    before = pipeline.query("SELECT (SELECT count() FROM episodes), (SELECT count() FROM interventions)")
    columns = "toUUID('{}') AS episode_id"
    for table, more in (("raw_episodes", ", -1 AS stream_offset"), ("raw_interventions", "")):
        rows = f"SELECT * REPLACE ({columns.format(made)}{more}) FROM {table} FINAL WHERE robot_id = 'robot-6'"
        change(pipeline, f"INSERT INTO {table} {rows}")
    rows = (
        "SELECT * REPLACE (9 AS revision, -1 AS stream_offset) FROM raw_episodes FINAL WHERE robot_id = 'robot-5'"
    )
    change(pipeline, f"INSERT INTO raw_episodes {rows}")
    named = [(Where.ROWS, Kind.ORPHANED), (Where.ROWS, Kind.ORPHANED), (Where.INTERVENTION_ROWS, Kind.ORPHANED)]
    assert kinds(audit(pipeline)) == sorted(named)
    report = audit(pipeline, repair=True)
    assert kinds(report) == sorted(named)
    assert any("--delete-unannounced" in note for note in report.notes)
    assert kinds(audit(pipeline)) == sorted(named)
    assert audit(pipeline, repair=True, delete_unannounced=True).clean
    assert audit(pipeline).findings == []
    assert pipeline.query("SELECT (SELECT count() FROM episodes), (SELECT count() FROM interventions)") == before


def test_an_object_of_other_bytes_is_found_when_it_is_read(pipeline: Pipeline) -> None:
    event = next(event for event in pipeline.newest().values() if event.robot_id == "robot-6")
    key = pipeline.objects.key(event.payload_uri)
    data = pipeline.objects.get(key)
    pipeline.objects.put(key, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert audit(pipeline).clean, "the size is right"
    assert kinds(audit(pipeline, deep=True)) == [(Where.OBJECTS, Kind.WRONG)]
    assert audit(pipeline, deep=True, repair=True).clean
    assert pipeline.objects.get(key) == data


def test_an_object_that_nobody_announced_is_an_orphan_once_it_is_old_enough(pipeline: Pipeline) -> None:
    event = next(event for event in pipeline.newest().values() if event.robot_id == "robot-7")
    key = f"episodes/{event.episode_id}/7-{'0' * 64}.parquet"
    pipeline.objects.put(key, b"left behind")
    assert audit(pipeline).clean
    report = audit(pipeline, grace=timedelta(0))
    assert the_one(report, Where.OBJECTS, Kind.ORPHANED).key == key
    pipeline.objects.delete(key)


def test_a_tombstone_of_events_that_were_not_buried_is_an_orphan_and_one_of_buried_events_is_not(
    pipeline: Pipeline,
) -> None:
    event = next(event for event in pipeline.newest().values() if event.robot_id == "robot-7")
    key = put_tombstone(pipeline, event, 0)
    assert audit(pipeline).clean
    assert the_one(audit(pipeline, grace=timedelta(0)), Where.OBJECTS, Kind.ORPHANED).key == key
    pipeline.objects.delete(key)
    assert audit(pipeline, grace=timedelta(0)).clean, "a tombstone of the robot whose start never came is there"


def test_dead_letters_tell_whether_a_record_was_buried(pipeline: Pipeline) -> None:
    places = {place_of(message) for message in pipeline.dead_letters()}
    (topic, number, offset), *_ = sorted(places)
    reader = LogReader(pipeline.settings.kafka, "test")
    try:
        log = DeadLetterLog(pipeline.settings.kafka, reader)
        assert log.holds({(topic, number, offset), (topic, number, offset + 10**6)}, 0) == {
            (topic, number, offset)
        }
        assert log.holds(places, int(time.time() * 1000) + 10**9) == set(), "nothing was buried after that"
    finally:
        reader.close()
