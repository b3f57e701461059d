"""`episode_steps`: an episode's steps, read by ClickHouse from the object store, and copied nowhere.

The view names a named collection, which holds address and keys of the bucket: ClickHouse shows them to nobody, and
takes no other address for them. It reads with the writer's rights: analysts need none but on the view. Both
are made by `sop deploy` and not by a migration, because they depend on the settings.
"""

from __future__ import annotations

from collections.abc import Collection

from clickhouse_connect.driver.binding import format_str, quote_identifier

from infra.clickhouse.client import ClickHouseError, Client, connect, unavailable_as_ours
from infra.errors import DeploymentConflict
from infra.settings import ClickHouseSettings, S3Settings

_STRUCTURE = (
    "index Int32, sequence Int64, captured_at DateTime64(6, 'UTC'), actor String, policy_version Int64, "
    "state Array(Float32), action Array(Float32), proposed_action Array(Float32), reward Float32"
)
"""What `consumers.payload` writes. Nullable arrays do not exist: no proposed action is an empty one."""

_VIEW = """
CREATE OR REPLACE VIEW episode_steps DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT index, sequence, captured_at, actor, policy_version, state, action, proposed_action, reward
FROM s3({collection}, filename = concat('episodes/', toString({{episode_id:UUID}}), '/*.parquet'),
    format = 'Parquet', structure = {structure})
WHERE _file = (SELECT splitByChar('/', payload_uri)[-1] FROM episodes WHERE episode_id = {{episode_id:UUID}})
ORDER BY index, sequence
COMMENT 'The steps of episode `episode_id`: its newest revision, read from its payload in the object store.
index: Position in the episode, from 0.
sequence: Position among all events of the robot''s boot.
captured_at: The robot''s clock.
actor: Who chose the action: POLICY or HUMAN.
policy_version: Version that was loaded; 0 for none.
state: Observation.
action: Action that was executed.
proposed_action: What the policy would have done while a human acted; else empty.
reward: Reward of the step.'
"""


_UNREADABLE = {32, 33, 39, 40, 89, 117, 271, 287, 354, 561, 618, 636, 638, 723, 1001}
"""Codes of ClickHouse for a file that ends too early, is no Parquet, or does not unpack."""


def unreadable(error: BaseException | None) -> bool:
    """Whether a query of `episode_steps` failed because the payload is not what was written."""
    return isinstance(error, ClickHouseError) and getattr(error, "code", None) in _UNREADABLE


def ensure_episode_steps(clickhouse: ClickHouseSettings, s3: S3Settings) -> None:
    """Make the view, and the named collection that it reads through, agree with the settings.

    The collection is changed where it lies, at once: who reads meanwhile finds the old one or the new one.

    Raises:
        ClickHouseUnavailable: no answer in time.
        DeploymentConflict: ClickHouse refuses; the writer may not make named collections.
    """
    collection = quote_identifier(f"{clickhouse.database}_payloads")
    fields = _fields(s3)
    parts = ", ".join(f"{name} = {format_str(value)} NOT OVERRIDABLE" for name, value in fields.items())
    client = connect(clickhouse)
    try:
        with unavailable_as_ours(clickhouse):
            client.command(f"CREATE NAMED COLLECTION IF NOT EXISTS {collection} AS {parts}")
            # Its values are shown to nobody, so that whether they differ cannot be asked.
            client.command(
                f"ALTER NAMED COLLECTION {collection} SET {parts}{_deleted(client, clickhouse, fields)}"
            )
            client.command(_VIEW.format(collection=collection, structure=format_str(_STRUCTURE)))
    except ClickHouseError as error:
        # Its text quotes the statement, and so the keys.
        code = getattr(error, "code", None)
        raise DeploymentConflict(
            f"ClickHouse refuses to make the view episode_steps or its named collection (code {code}); the user "
            f"{clickhouse.username!r} needs NAMED COLLECTION ADMIN and S3"
        ) from None
    finally:
        client.close()


def _deleted(client: Client, clickhouse: ClickHouseSettings, fields: Collection[str]) -> str:
    """The clause that takes away what the collection holds and is not to hold."""
    rows = client.query(
        "SELECT arrayJoin(mapKeys(collection)) FROM system.named_collections WHERE name = {name:String}",
        parameters={"name": f"{clickhouse.database}_payloads"},
    ).result_rows
    names = [quote_identifier(str(name)) for (name,) in rows if name not in fields]
    return f" DELETE {', '.join(names)}" if names else ""


def _fields(s3: S3Settings) -> dict[str, str]:
    """What the collection holds. Without keys of ours ClickHouse uses those of the machine it runs on."""
    endpoint = s3.endpoint_url or f"https://s3.{s3.region}.amazonaws.com"
    fields = {"url": f"{endpoint.rstrip('/')}/{s3.bucket}/"}
    if s3.access_key_id is None or s3.secret_access_key is None:
        return fields | {"use_environment_credentials": "1"}
    secret = s3.secret_access_key.get_secret_value()
    return fields | {"access_key_id": s3.access_key_id, "secret_access_key": secret}
