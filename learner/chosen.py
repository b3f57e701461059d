"""Which episodes of the past a backfill is made from.

Those of the training stream, by the time of their arrival or by the offsets of their announcements, or those that
a predicate over the view `episodes` names; of each the newest revision that topic or index know. What the topic no
longer holds is taken from ClickHouse and S3: a payload's own metadata repeat its announcement, and the row says
where that lay. An index that lags hides nothing that the topic still holds; only a predicate speaks of its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from infra.clickhouse.client import connect
from infra.errors import AccessRefused, DeploymentConflict, SettingMissing, Unavailable
from infra.registry import Registry
from infra.settings import Settings
from learner.choice import Choice, Found, Row, is_useless
from learner.patience import Patience
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passed:
    """What is kept of an announcement that is not chosen."""

    revision: int
    appended_at: datetime
    useless: bool


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


def _is_chosen(item: Received[EpisodeMaterialized] | Row, choice: Choice) -> bool:
    if isinstance(item, Row):
        return not item.excluded and choice.takes(item.appended_at, item.partition, item.offset)
    return not _is_useless(item) and choice.takes(item.event.appended_at, item.partition, item.offset)


def _is_useless(item: Received[EpisodeMaterialized] | Passed) -> bool:
    if isinstance(item, Passed):
        return item.useless
    return is_useless(item.event)


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
    except (AccessRefused, DeploymentConflict, SettingMissing, Unavailable, ClickHouseError) as error:
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
