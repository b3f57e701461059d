"""`sop backfill`: a new policy line from episodes of the past, with another algorithm or another threshold.

Which episodes: those of the training stream, by the time of their arrival, or those that a predicate over the view
`episodes` names. What the topic no longer holds is taken from ClickHouse and S3: a payload's own metadata repeat
its announcement. The line is its own; the live one, its topics' readers and its checkpoints are not touched.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pydantic import ValidationError

from infra.clickhouse.client import connect
from infra.clock import SystemClock
from infra.errors import ObjectMissing
from infra.health import Health
from infra.object_store import ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from learner.barrier import in_order
from learner.errors import BadPayload, LineExists, NothingChosen
from learner.line import Line
from learner.patience import Patience
from learner.rerun import train_base
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, EpisodeSource, PolicyVersion
from schemas.topics import POLICY_VERSIONS, TRAINING_EPISODES

_METADATA = b"sop.episode"
NOWHERE = -1
"""Partition and offset of an episode that the topic no longer holds."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which episodes: `where` is SQL over `episodes`, run as the user who may only read; times are of arrival."""

    where: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Listed:
    """A stream that holds what was chosen, once. Implements `learner.stream.Announcements`."""

    def __init__(self, chosen: Iterable[Received[EpisodeMaterialized]]) -> None:
        self._chosen = list(chosen)

    @property
    def positions(self) -> dict[int, int]:
        """None: a chosen set is not read on."""
        return {}

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        """Nothing to seek."""

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:  # noqa: ARG002 - never waits
        """All of it at the first call, nothing afterwards."""
        found, self._chosen = self._chosen, []
        return found


def choose_episodes(settings: Settings, choice: Choice, patience: Patience) -> list[Received[EpisodeMaterialized]]:
    """The newest revision of each episode that is chosen, in the order of their arrival.

    Never evaluations, nor what a label excludes.

    Raises:
        SettingMissing: a predicate needs ClickHouse's reading user.
        clickhouse_connect.driver.exceptions.ClickHouseError: the predicate is none.
        BadPayload: an episode that the topic no longer holds cannot be read from S3 as ClickHouse has it.
        Stopped: a stop was asked for.
    """
    held, whole = _held(settings, patience)
    if choice.where is None and whole:
        found = list(held.values())
    else:
        store = ObjectStore(settings.s3)
        found = [
            held.get((row.episode_id, row.revision)) or _stored(store, row, patience)
            for row in _rows(settings, choice.where or "true")
        ]
    chosen = [
        item
        for item in found
        if item.event.source is not EpisodeSource.EVALUATION and not item.event.excluded and _within(item, choice)
    ]
    return sorted(chosen, key=lambda item: (item.event.appended_at, item.event.episode_id))


def backfill(
    settings: Settings,
    chosen: list[Received[EpisodeMaterialized]],
    stop: threading.Event,
    advance: Callable[[], None] = lambda: None,
) -> PolicyVersion:
    """Train a new line's first version on these episodes; `settings.learner` says how, and its name.

    If it is interrupted, the same call goes on with the same episodes: the journal has them.

    Args:
        settings: `learner.pretrain_steps` updates are taken.
        chosen: what `choose_episodes` found.
        stop: ends it.
        advance: called after each update.

    Raises:
        LineExists: the line has versions: a backfill never adds to one.
        NothingChosen: there is nothing in these episodes to learn from.
        Stopped: a stop was asked for.
    """
    learner = settings.learner
    require_new(settings, Patience(stop))
    with Line(settings, stop, SystemClock(), Health(), announcements=Listed(chosen)) as line:
        line.take_over()
        line.catch_up()
        if not line.started:
            line.intake.poll(0.0)
            waiting = in_order(line.intake.waiting.values())
            taken = [(seen, episode) for seen in waiting if (episode := line.intake.take(seen)) is not None]
            if not line.start(taken):
                raise NothingChosen(f"{len(taken)} episodes, and none that {learner.algorithm} learns from")

        def update() -> None:
            line.update(online=False)
            advance()

        train_base(line.core, learner, update)
        line.publish()
        if line.newest is None:
            raise RuntimeError("a line that has published has a newest version")
        return line.newest


def require_new(settings: Settings, patience: Patience) -> None:
    """Refuse a line that has versions.

    Raises:
        LineExists: it has.
    """
    registry = Registry(settings.registry)
    stream = EventStream(settings.kafka, registry, POLICY_VERSIONS, PolicyVersion, patience)
    try:
        policies = {item.event.policy for item in stream.read_to_end()}
    finally:
        stream.close()
    if settings.learner.policy in policies:
        raise LineExists(f"policy {settings.learner.policy} has versions already; choose another name (--policy)")


@dataclass(frozen=True, slots=True)
class _Row:
    """What ClickHouse knows of an episode."""

    episode_id: str
    revision: int
    payload_uri: str
    payload_sha256: str


def _held(
    settings: Settings, patience: Patience
) -> tuple[dict[tuple[str, int], Received[EpisodeMaterialized]], bool]:
    """Newest revisions that the topic holds, by episode and revision; and whether retention has taken none."""
    registry = Registry(settings.registry)
    stream = EventStream(settings.kafka, registry, TRAINING_EPISODES, EpisodeMaterialized, patience)
    try:
        newest: dict[str, Received[EpisodeMaterialized]] = {}
        for item in stream.read_to_end():
            known = newest.get(item.event.episode_id)
            if known is None or item.event.revision > known.event.revision:
                newest[item.event.episode_id] = item
        whole = stream.begins_at_its_beginning()
    finally:
        stream.close()
    return {(item.event.episode_id, item.event.revision): item for item in newest.values()}, whole


def _rows(settings: Settings, where: str) -> Iterator[_Row]:
    sql = f"SELECT toString(episode_id), revision, payload_uri, payload_sha256 FROM episodes WHERE ({where}\n)"  # noqa: S608
    for episode_id, revision, uri, sha256 in connect(settings.clickhouse, analyst=True).query(sql).result_rows:
        text = sha256.decode() if isinstance(sha256, bytes) else str(sha256)
        yield _Row(str(episode_id), int(revision), str(uri), text)


def _stored(store: ObjectStore, row: _Row, patience: Patience) -> Received[EpisodeMaterialized]:
    """The announcement that a payload's own metadata repeat."""
    try:
        data = patience.call("object store", lambda: store.get(store.key(row.payload_uri)))
        facts = json.loads((pq.read_schema(io.BytesIO(data)).metadata or {})[_METADATA])
        if sha256_hex(data) != row.payload_sha256:
            raise BadPayload(f"{row.payload_uri} is not what was announced")
        shared = {name: value for name, value in facts.items() if name in EpisodeMaterialized.model_fields}
        document = shared | {
            "payload_uri": row.payload_uri,
            "payload_sha256": row.payload_sha256,
            "payload_bytes": len(data),
            "materialized_at": facts["appended_at"],  # when it was announced, nobody knows any more
        }
        event = EpisodeMaterialized.model_validate_json(json.dumps(document))
    except (ObjectMissing, KeyError, ValueError, pa.ArrowException, ValidationError) as error:
        raise BadPayload(f"episode {row.episode_id} cannot be read from {row.payload_uri}: {error!r}") from error
    return Received(event, NOWHERE, NOWHERE, event.appended_at)


def _within(item: Received[EpisodeMaterialized], choice: Choice) -> bool:
    at = item.event.appended_at
    return (choice.since is None or at >= choice.since) and (choice.until is None or at < choice.until)
