"""Counting what arrived, in each place by its own means: objects are read, topics consumed, tables queried."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from infra.clickhouse.client import Client
from infra.kafka import LogReader, Message
from infra.kafka.log_reader import all_partitions
from infra.object_store import ObjectStore
from infra.settings import Settings
from schemas.codec import decode, unframe
from schemas.events import EpisodeMaterialized
from schemas.topics import DEAD_LETTERS, TRAINING_EPISODES

_KEY = re.compile(r"episodes/(?P<episode>[0-9a-f-]{36})/(?P<revision>\d+)-(?P<sha256>[0-9a-f]{64})\.parquet")
_READ_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """training-episodes as a plain consumer sees it: episodes, and records beyond one for each revision."""

    episodes: int
    duplicates: int
    newest: dict[str, tuple[int, str]]
    """Highest revision and its sha256 by episode."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The newest payload of each episode: how many, and the rows in them."""

    episodes: int
    steps: int


def read_stream(settings: Settings) -> Stream:
    """Consume training-episodes from its beginning to its end, committed records only."""
    revisions: Counter[tuple[str, int]] = Counter()
    newest: dict[str, tuple[int, str]] = {}
    for message in _read(settings, TRAINING_EPISODES):
        _, body = unframe(message.value())
        event = decode(EpisodeMaterialized, body)
        revisions[event.episode_id, event.revision] += 1
        newest[event.episode_id] = max(
            newest.get(event.episode_id, (-1, "")), (event.revision, event.payload_sha256)
        )
    return Stream(len(newest), revisions.total() - len(revisions), newest)


def count_dead_letters(settings: Settings) -> int:
    """Records on dead-letters."""
    return sum(1 for _ in _read(settings, DEAD_LETTERS))


def read_objects(settings: Settings, stream: Stream) -> Objects:
    """Read every episode's newest payload.

    A crashed materializer may leave a second object of the same revision; then the announced one counts.
    """
    store = ObjectStore(settings.s3)
    keys: dict[str, tuple[int, bool, str]] = {}
    for key in store.list("episodes"):
        if match := _KEY.fullmatch(key):
            episode, revision = match["episode"], int(match["revision"])
            announced = stream.newest.get(episode) == (revision, match["sha256"])
            keys[episode] = max(keys.get(episode, (-1, False, "")), (revision, announced, key))
    with ThreadPoolExecutor(8) as pool:
        rows = pool.map(lambda item: _rows(store.get(item[2])), keys.values())
        return Objects(len(keys), sum(rows))


def count_rows(clickhouse: Client) -> tuple[int, int, int]:
    """Episodes and interventions in ClickHouse's views, and rows in them that tell of the same one twice."""
    episodes, distinct = clickhouse.query("SELECT count(), uniqExact(episode_id) FROM episodes").result_rows[0]
    interventions, distinct_interventions = clickhouse.query(
        "SELECT count(), uniqExact(episode_id, intervention_id) FROM interventions"
    ).result_rows[0]
    doubled = (episodes - distinct) + (interventions - distinct_interventions)
    return int(distinct), int(distinct_interventions), int(doubled)


def _rows(data: bytes) -> int:
    return int(pq.read_table(io.BytesIO(data)).num_rows)


def _read(settings: Settings, topic: str) -> Iterator[Message]:
    reader = LogReader(settings.kafka, f"demo-audit-{topic}")
    try:
        yield from reader.read_to_end(all_partitions(reader, [topic]), _READ_SECONDS)
    finally:
        reader.close()
