"""Which episodes of the past a backfill is made from.

Those of the training stream, by the time of their arrival or by the offsets of their announcements, or those that
a predicate over the view `episodes` names; of each the newest revision that topic or index know. What the topic no
longer holds is taken from ClickHouse and S3: a payload's own metadata repeat its announcement, and the row says
where that lay. An index that lags hides nothing that the topic still holds; only a predicate speaks of its rows.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import ValidationError

from infra.clickhouse.client import connect
from infra.errors import AccessRefused, ObjectMissing, SettingMissing, Unavailable
from infra.object_store import ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from learner.cache import PayloadCache
from learner.errors import BadPayload
from learner.patience import Patience
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, EpisodeSource
from schemas.topics import TRAINING_EPISODES

_log = structlog.get_logger(__name__)

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


@dataclass(frozen=True, slots=True)
class Row:
    """What ClickHouse knows of an episode, and where its announcement lay."""

    episode_id: str
    revision: int
    payload_uri: str
    payload_sha256: str
    payload_bytes: int
    task: str
    step_count: int
    excluded: bool
    appended_at: datetime
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Passed:
    """What is kept of an announcement that is not chosen."""

    revision: int
    appended_at: datetime
    useless: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What was chosen, in the order of arrival: announcements, or rows where the topic holds none any more.

    newer: of how many the topic holds a newer revision than the row that the predicate named. It is taken, and
    whether the predicate holds of it too nobody knows. unseen: how many episodes the topic holds and the index
    does not yet: a predicate says nothing of them. ends: by partition of the topic, the offset behind all that was
    looked at.
    """

    episodes: tuple[Received[EpisodeMaterialized] | Row, ...]
    newer: int = 0
    unseen: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)

    def sizes(self) -> list[tuple[str, int, int]]:
        """Task, control steps and bytes of each episode."""
        known = [item.event if isinstance(item, Received) else item for item in self.episodes]
        return [(one.task, one.step_count, one.payload_bytes) for one in known]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What can be trained on; `lost` are ids of episodes that cannot be read from S3 as ClickHouse has them."""

    episodes: list[Received[EpisodeMaterialized]]
    lost: tuple[str, ...] = ()


def find_episodes(settings: Settings, choice: Choice, patience: Patience) -> Found:
    """The newest revision of each episode that is chosen; no payload is read.

    Never evaluations, nor what a label excludes.

    Args:
        settings: where the servers are.
        choice: which ones.
        patience: waits for the servers.

    Raises:
        SettingMissing: ClickHouse is asked (for a predicate, or for what the topic lost), and has no reading user.
        clickhouse_connect.driver.exceptions.ClickHouseError: the predicate is none.
        Stopped: a stop was asked for.
    """
    rows = None if choice.where is None else _rows(settings, choice.where)
    held, whole, ends = _held(
        settings,
        patience,
        lambda item: (rows is None or item.event.episode_id in rows) and _is_chosen(item, choice),
    )
    if rows is None:
        rows = {} if whole and not _has_earlier(settings, held) else _rows(settings, "true")
    newer = unseen = 0
    found: dict[str, Received[EpisodeMaterialized] | Passed | Row] = {}
    for episode_id in rows if choice.where is not None else {**held, **rows}:
        row, announced = rows.get(episode_id), held.get(episode_id)
        if row is None or (announced is not None and _revision(announced) >= row.revision):
            item = found[episode_id] = held[episode_id]
            newer += choice.where is not None and row is not None and _revision(item) > row.revision
        else:
            found[episode_id] = row
    if choice.where is not None and held:
        useful = {episode_id for episode_id, item in held.items() if not _is_useless(item)}
        # What came into the index while the topic was read was neither chosen nor is it missing there now.
        late = useful & (_rows(settings, choice.where).keys() - rows.keys())
        unseen = len(useful - _indexed(settings, held) | late)
    episodes = [item for item in found.values() if not isinstance(item, Passed) and _is_chosen(item, choice)]
    return Found(tuple(sorted(episodes, key=_by_arrival)), newer, unseen, ends)


def read_episodes(
    settings: Settings,
    found: Found,
    patience: Patience,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Chosen:
    """Their announcements: the topic's, or what the payloads say, which the training will find on this disk.

    Args:
        settings: where the servers are.
        found: what `find_episodes` found.
        patience: waits for the servers.
        told: called with how many were looked at, and of how many.

    Raises:
        Stopped: a stop was asked for.
    """
    store, bound = ObjectStore(settings.s3), settings.cache.max_bytes
    cache = PayloadCache(settings.cache.directory, bound) if bound else None
    lost: list[str] = []

    def look(item: Received[EpisodeMaterialized] | Row) -> Received[EpisodeMaterialized] | BadPayload:
        if isinstance(item, Received):
            return item
        try:
            return _stored(store, cache, item, patience)
        except BadPayload as error:
            _log.error("episode_lost", episode_id=item.episode_id, reason=str(error))
            lost.append(item.episode_id)
            return error

    read: list[Received[EpisodeMaterialized]] = []
    with ThreadPoolExecutor(_READERS, "payloads") as readers:
        told(0, len(found.episodes))
        for begin in range(0, len(found.episodes), _AT_ONCE):
            looked = readers.map(look, found.episodes[begin : begin + _AT_ONCE])
            read.extend(item for item in looked if isinstance(item, Received) and not _is_useless(item))
            told(min(begin + _AT_ONCE, len(found.episodes)), len(found.episodes))
    return Chosen(read, tuple(sorted(lost)))


def choose_episodes(settings: Settings, choice: Choice, patience: Patience) -> list[Received[EpisodeMaterialized]]:
    """Both, for those who need no numbers: what can be trained on. Raises what they raise."""
    return read_episodes(settings, find_episodes(settings, choice, patience), patience).episodes


def _is_chosen(item: Received[EpisodeMaterialized] | Row, choice: Choice) -> bool:
    if isinstance(item, Row):
        return not item.excluded and choice.takes(item.appended_at, item.partition, item.offset)
    return not _is_useless(item) and choice.takes(item.event.appended_at, item.partition, item.offset)


def _is_useless(item: Received[EpisodeMaterialized] | Passed) -> bool:
    if isinstance(item, Passed):
        return item.useless
    return item.event.source is EpisodeSource.EVALUATION or item.event.excluded


def _revision(item: Received[EpisodeMaterialized] | Passed) -> int:
    return item.revision if isinstance(item, Passed) else item.event.revision


def _arrived_at(item: Received[EpisodeMaterialized] | Passed) -> datetime:
    return item.appended_at if isinstance(item, Passed) else item.event.appended_at


def _by_arrival(item: Received[EpisodeMaterialized] | Row) -> tuple[datetime, str]:
    known = item.event if isinstance(item, Received) else item
    return known.appended_at, known.episode_id


Held = Mapping[str, Received[EpisodeMaterialized] | Passed]


def _held(
    settings: Settings, patience: Patience, is_wanted: Callable[[Received[EpisodeMaterialized]], bool]
) -> tuple[Held, bool, dict[int, int]]:
    """Newest revisions that the topic holds, by episode; whether retention has taken none; and where it ends."""
    registry = Registry(settings.registry)
    stream = EventStream(settings.kafka, registry, TRAINING_EPISODES, EpisodeMaterialized, patience)
    try:
        newest: dict[str, Received[EpisodeMaterialized] | Passed] = {}
        for item in itertools.chain.from_iterable(stream.batches_to_end()):
            known, event = newest.get(item.event.episode_id), item.event
            if known is None or event.revision > _revision(known):
                passed = Passed(event.revision, event.appended_at, _is_useless(item))
                newest[event.episode_id] = item if is_wanted(item) else passed
        whole = stream.begins_at_its_beginning()
    finally:
        stream.close()
    return newest, whole, stream.positions


def _has_earlier(settings: Settings, held: Held) -> bool:
    """Whether the index has episodes of before all that the topic holds: then the topic was made anew.

    False where nobody can say.
    """
    sql = "SELECT count() FROM episodes WHERE source != 'EVALUATION'"
    try:
        if held:
            sql += " AND appended_at < {earliest:DateTime64(6, 'UTC')}"
            return bool(_ask(settings, sql, earliest=min(map(_arrived_at, held.values())))[0][0])
        return bool(_ask(settings, sql)[0][0])
    except (AccessRefused, SettingMissing, Unavailable, ClickHouseError) as error:
        _log.warning("index_not_asked", reason=str(error), why="whether it has episodes of an earlier topic")
        return False


def _rows(settings: Settings, where: str) -> dict[str, Row]:
    """Rows of which the predicate holds, by episode."""
    columns = (
        "toString(episode_id), revision, payload_uri, payload_sha256, payload_bytes, task, step_count, excluded, "
        "appended_at, stream_partition, stream_offset"
    )
    sql = f"SELECT {columns} FROM episodes WHERE source != 'EVALUATION' AND ({where}\n)"  # noqa: S608
    found = {}
    for one, revision, uri, sha256, size, task, steps, excluded, at, partition, offset in _ask(settings, sql):
        text = sha256.decode() if isinstance(sha256, bytes) else str(sha256)
        arrived = at if at.tzinfo else at.replace(tzinfo=UTC)
        place = int(partition), int(offset)
        facts = int(size), str(task), int(steps), bool(excluded)
        found[str(one)] = Row(str(one), int(revision), str(uri), text, *facts, arrived, *place)
    return found


def _indexed(settings: Settings, held: Held) -> set[str]:
    """Episodes that the index has in any revision, of those that the topic holds."""
    earliest = min(map(_arrived_at, held.values()))
    sql = "SELECT toString(episode_id) FROM episodes WHERE appended_at >= {earliest:DateTime64(6, 'UTC')}"
    return {str(row[0]) for row in _ask(settings, sql, earliest=earliest)}


def _ask(settings: Settings, sql: str, **parameters: object) -> Sequence[Sequence[Any]]:
    client = connect(settings.clickhouse, analyst=True)
    try:
        rows: Sequence[Sequence[Any]] = client.query(sql, parameters=parameters).result_rows
        return rows
    finally:
        client.close()


def _stored(
    store: ObjectStore, cache: PayloadCache | None, row: Row, patience: Patience
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
