"""An analyst reads an episode's steps where they lie, and never sees what opens the bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest

from consumers.assembly import Assembly
from consumers.emitted import EmittedLog
from consumers.payload import Payload, build_payload
from consumers.rows import columns_of, rows_of
from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.errors import DeploymentConflict
from infra.object_store import ObjectStore
from infra.settings import ClickHouseSettings, S3Settings, Settings
from schemas.events import RobotEvent, Step
from tests.consumers.robots import Log, Robot, decoded, uuid7


@pytest.fixture(scope="module")
def database(settings: Settings) -> ClickHouseSettings:
    made = settings.clickhouse.model_copy(update={"database": "infra_payloads"})
    ObjectStore(settings.s3).ensure_bucket()
    migrate(made)
    for _ in range(2):
        ensure_episode_steps(made, settings.s3)
    return made


@pytest.fixture
def analyst(database: ClickHouseSettings) -> Iterator[Client]:
    made = connect(database, analyst=True)
    yield made
    made.close()


def payload_of(events: list[RobotEvent], revision: int) -> Payload:
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    [only] = assembly.add(decoded([log.append(event) for event in events])).sealed
    return build_payload(only.episode, only.closed_by, revision)


def announce(settings: Settings, database: ClickHouseSettings, payload: Payload) -> None:
    """Store it, and its rows."""
    uri = ObjectStore(settings.s3).put(payload.key, payload.data)
    event = payload.facts.announcement(
        uri=uri, sha256=payload.sha256, size=len(payload.data), at=payload.facts.ended_at
    )
    client = connect(database)
    for row in rows_of(event, 0, 0):
        client.insert(row.table, [list(row.values.values())], column_names=columns_of([row]))
    client.close()


def test_the_steps_are_those_that_the_robot_sent(
    settings: Settings, database: ClickHouseSettings, analyst: Client
) -> None:
    events = Robot().episode(9, intervene_at=4)
    announce(settings, database, payload_of(events, 1))
    found = analyst.query(
        "SELECT * FROM episode_steps(episode_id = {id:String})", parameters={"id": events[0].episode_id}
    )
    sent = [event for event in events if isinstance(event, Step)]
    assert len(found.result_rows) == len(sent) == 9
    for row, step in zip(found.named_results(), sent, strict=True):
        assert (row["index"], row["sequence"], row["actor"]) == (step.index, step.sequence, step.actor.value)
        assert row["captured_at"].replace(tzinfo=UTC) == step.captured_at
        assert (row["policy_version"], row["reward"]) == (step.policy_version, step.reward)
        assert len(row["state"]) * 4 == len(step.state)
        assert len(row["proposed_action"]) * 4 == len(step.proposed_action or b"")


def test_of_several_revisions_the_one_that_the_row_names_is_read(
    settings: Settings, database: ClickHouseSettings, analyst: Client
) -> None:
    events = Robot().episode(6)
    payloads = [payload_of(events, revision) for revision in (2, 1)]
    for payload in payloads:
        announce(settings, database, payload)
    found = analyst.query(
        "SELECT count(), countDistinct(sequence) FROM episode_steps(episode_id = {id:String})",
        parameters={"id": events[0].episode_id},
    )
    assert found.result_rows == [(6, 6)]


def test_an_episode_that_nobody_knows_has_no_steps(analyst: Client) -> None:
    found = analyst.query("SELECT * FROM episode_steps(episode_id = {id:String})", parameters={"id": uuid7()})
    assert found.result_rows == []


def test_no_analyst_sees_the_keys_or_sends_them_elsewhere(
    settings: Settings, database: ClickHouseSettings, analyst: Client
) -> None:
    assert settings.s3.secret_access_key is not None
    secret, key = settings.s3.secret_access_key.get_secret_value(), settings.s3.access_key_id
    shown = ""
    for sql in (
        "SHOW CREATE TABLE episode_steps",
        "SELECT * FROM system.named_collections",
        "SELECT * FROM system.tables WHERE name = 'episode_steps'",
        "SELECT collection, create_query FROM system.named_collections",
        "EXPLAIN QUERY TREE SELECT * FROM episode_steps(episode_id = '00000000-0000-7000-8000-000000000000')",
    ):
        shown += repr(analyst.query(sql).result_rows)
    assert "episode_steps" in shown
    assert f"{database.database}_payloads" in shown
    assert secret not in shown
    assert str(key) not in shown
    with pytest.raises(ClickHouseError, match="format_display_secrets_in_show_and_select is not for"):
        analyst.query(
            "SELECT * FROM system.named_collections SETTINGS format_display_secrets_in_show_and_select = 1"
        )
    elsewhere = f"SELECT * FROM s3({database.database}_payloads, url = 'http://127.0.0.1:9/x/y.parquet')"
    for client, reason in ((analyst, "s3 is not allowed"), (connect(database), "Override not allowed for 'url'")):
        with pytest.raises(ClickHouseError) as error:
            client.query(elsewhere)
        assert secret not in str(error.value)
        assert reason in str(error.value)


def test_what_clickhouse_refuses_is_said_without_the_keys(
    database: ClickHouseSettings, settings: Settings
) -> None:
    assert settings.s3.secret_access_key is not None
    reader = database.model_copy(
        update={"username": database.analyst_username, "password": database.analyst_password}
    )
    with pytest.raises(DeploymentConflict, match="needs NAMED COLLECTION ADMIN") as error:
        ensure_episode_steps(reader, settings.s3)
    assert settings.s3.secret_access_key.get_secret_value() not in repr(error.value)
    assert error.value.__suppress_context__


def test_keys_that_hold_quotes_are_keys_still(database: ClickHouseSettings, settings: Settings) -> None:
    odd = S3Settings.model_validate(
        {**settings.s3.model_dump(exclude={"secret_access_key"}), "secret_access_key": "a'b\\c\"d`e"}
    )
    ensure_episode_steps(database, odd)
    ensure_episode_steps(database, settings.s3)


def test_keys_are_taken_away_and_put_back(
    database: ClickHouseSettings, settings: Settings, analyst: Client
) -> None:
    ask = f"SELECT mapKeys(collection) FROM system.named_collections WHERE name = '{database.database}_payloads'"
    no_keys = settings.s3.model_copy(update={"access_key_id": None, "secret_access_key": None})
    ensure_episode_steps(database, no_keys)
    assert set(analyst.query(ask).result_rows[0][0]) == {"url", "use_environment_credentials"}
    ensure_episode_steps(database, settings.s3)
    assert set(analyst.query(ask).result_rows[0][0]) == {"url", "access_key_id", "secret_access_key"}


def test_steps_are_read_while_the_view_is_deployed_again_and_again(
    settings: Settings, database: ClickHouseSettings
) -> None:
    events = Robot().episode(4)
    announce(settings, database, payload_of(events, 1))
    deployed = threading.Event()

    def read() -> int:
        client, reads = connect(database, analyst=True), 0
        while not (deployed.is_set() and reads >= 10):
            sql = "SELECT count() FROM episode_steps(episode_id = {id:String})"
            assert client.query(sql, parameters={"id": events[0].episode_id}).result_rows == [(4,)]
            reads += 1
        client.close()
        return reads

    def deploy() -> None:
        for _ in range(10):
            ensure_episode_steps(database, settings.s3)

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        writers = [threads.submit(deploy) for _ in range(2)]
        try:
            for writer in writers:
                writer.result(120)
        finally:
            deployed.set()
        assert all(reader.result(120) >= 10 for reader in readers)
