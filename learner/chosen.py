"""Which episodes of the past a backfill is made from.

Those of the training stream, by the time of their arrival or by the offsets of their announcements, or those that
a predicate over the view `episodes` names; of each the newest revision. What the topic no longer holds is taken
from ClickHouse and S3: a payload's own metadata repeat its announcement, and the row says where that lay.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from infra.clickhouse.client import connect
from infra.errors import ObjectMissing
from infra.object_store import ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from learner.cache import PayloadCache
from learner.errors import BadPayload
from learner.patience import Patience
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, EpisodeSource
from schemas.topics import TRAINING_EPISODES

_METADATA = b"sop.episode"
NOWHERE = -1
"""Partition and offset of an episode that the topic no longer holds."""

_READERS = 8
_AT_ONCE = 256
_OFFSET = re.compile(r"(\d*)@(\d+)")


@dataclass(frozen=True, slots=True)
class Offsets:
    """A place in training-episodes: an offset for each partition that is named, and `every` for the others."""

    by_partition: Mapping[int, int] = field(default_factory=dict)
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> Offsets | None:
        """`2@1200,5@80`: partition 2 at offset 1200 and 5 at 80. `@1200`: all at 1200. None: no such text.

        Raises:
            ValueError: a partition is named twice.
        """
        parts = [_OFFSET.fullmatch(part.strip()) for part in text.split(",")]
        found = [(part[1], int(part[2])) for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        if len({partition for partition, _ in found}) < len(found):
            raise ValueError(f"{text!r} names a partition twice")
        every = dict(found).get("")
        return cls({int(partition): offset for partition, offset in found if partition}, every)

    def of(self, partition: int) -> int | None:
        """The offset in a partition; None where nothing is said of it."""
        return self.by_partition.get(partition, self.every)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which episodes: `where` is SQL over `episodes`, run as the user who may only read.

    since, until: times of arrival; first, past: offsets of the announcements. Both ranges begin with their first
    and end before their last; where nothing is said, there is no bound.
    """

    where: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: Offsets = Offsets()
    past: Offsets = Offsets()

    def takes(self, at: datetime, partition: int, offset: int) -> bool:
        """Whether an episode is chosen that arrived at `at` and was announced there."""
        if (self.since is not None and at < self.since) or (self.until is not None and at >= self.until):
            return False
        first, past = self.first.of(partition), self.past.of(partition)
        return (first is None or offset >= first) and (past is None or offset < past)


def choose_episodes(
    settings: Settings,
    choice: Choice,
    patience: Patience,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Received[EpisodeMaterialized]]:
    """The newest revision of each episode that is chosen, in the order of their arrival.

    Never evaluations, nor what a label excludes.

    Args:
        settings: where the servers are.
        choice: which ones.
        patience: waits for the servers.
        told: called with how many were looked at, and of how many.

    Raises:
        SettingMissing: a predicate needs ClickHouse's reading user.
        clickhouse_connect.driver.exceptions.ClickHouseError: the predicate is none.
        BadPayload: an episode that the topic no longer holds cannot be read from S3 as ClickHouse has it.
        Stopped: a stop was asked for.
    """
    held, whole = _held(settings, patience)
    if choice.where is None and whole:
        found: Iterable[Received[EpisodeMaterialized]] = (
            item for item in held.values() if choice.takes(item.event.appended_at, item.partition, item.offset)
        )
    else:
        rows = [
            row
            for row in _rows(settings, choice.where or "true")
            if choice.takes(row.appended_at, row.partition, row.offset)
        ]
        found = _announced(settings, rows, held, patience, told)
    chosen = [
        item for item in found if item.event.source is not EpisodeSource.EVALUATION and not item.event.excluded
    ]
    return sorted(chosen, key=lambda item: (item.event.appended_at, item.event.episode_id))


Held = Mapping[tuple[str, int], Received[EpisodeMaterialized]]


def _held(settings: Settings, patience: Patience) -> tuple[Held, bool]:
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


@dataclass(frozen=True, slots=True)
class _Row:
    """What ClickHouse knows of an episode, and where its announcement lay."""

    episode_id: str
    revision: int
    payload_uri: str
    payload_sha256: str
    appended_at: datetime
    partition: int
    offset: int


def _rows(settings: Settings, where: str) -> Iterator[_Row]:
    columns = (
        "toString(episode_id), revision, payload_uri, payload_sha256, appended_at, stream_partition, stream_offset"
    )
    sql = f"SELECT {columns} FROM episodes WHERE source != 'EVALUATION' AND ({where}\n)"  # noqa: S608
    found = connect(settings.clickhouse, analyst=True).query(sql).result_rows
    for episode_id, revision, uri, sha256, at, partition, offset in found:
        text = sha256.decode() if isinstance(sha256, bytes) else str(sha256)
        arrived = at if at.tzinfo else at.replace(tzinfo=UTC)
        yield _Row(str(episode_id), int(revision), str(uri), text, arrived, int(partition), int(offset))


def _announced(
    settings: Settings, rows: list[_Row], held: Held, patience: Patience, told: Callable[[int, int], None]
) -> Iterator[Received[EpisodeMaterialized]]:
    """Their announcements: the topic's, or what the payloads say, which the training will find on this disk."""
    store, bound = ObjectStore(settings.s3), settings.cache.max_bytes
    cache = PayloadCache(settings.cache.directory, bound) if bound else None

    def look(row: _Row) -> Received[EpisodeMaterialized]:
        return held.get((row.episode_id, row.revision)) or _stored(store, cache, row, patience)

    with ThreadPoolExecutor(_READERS, "payloads") as readers:
        told(0, len(rows))
        for begin in range(0, len(rows), _AT_ONCE):
            yield from readers.map(look, itertools.islice(rows, begin, begin + _AT_ONCE))
            told(min(begin + _AT_ONCE, len(rows)), len(rows))


def _stored(
    store: ObjectStore, cache: PayloadCache | None, row: _Row, patience: Patience
) -> Received[EpisodeMaterialized]:
    """The announcement that a payload's own metadata repeat."""
    try:
        data = cache.get(row.payload_sha256) if cache is not None else None
        if data is None:
            data = patience.call("object store", lambda: store.get(store.key(row.payload_uri)))
            if sha256_hex(data) != row.payload_sha256:
                raise BadPayload(f"{row.payload_uri} is not what was announced")
            if cache is not None:
                cache.put(row.payload_sha256, data)
        facts = json.loads((pq.read_schema(io.BytesIO(data)).metadata or {})[_METADATA])
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
