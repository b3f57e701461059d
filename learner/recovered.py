"""Announcements of what a backfill chose: the topic's, or what payloads say of themselves where it has none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pydantic import ValidationError

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore, sha256_hex
from infra.settings import Settings
from learner.cache import PayloadCache
from learner.choice import Choice, Found, Row, is_useless
from learner.chosen import find_episodes
from learner.errors import BadPayload
from learner.patience import Patience
from learner.stream import Received
from schemas.events import EpisodeMaterialized

_log = structlog.get_logger(__name__)

_METADATA = b"sop.episode"
NOWHERE = -1
"""Partition and offset of an episode that the topic no longer holds."""

_READERS = 8
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Chosen:
    """What can be trained on; `lost` are ids of episodes that cannot be read from S3 as ClickHouse has them."""

    episodes: list[Received[EpisodeMaterialized]]
    lost: tuple[str, ...] = ()


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
            read.extend(item for item in looked if isinstance(item, Received) and not is_useless(item.event))
            told(min(begin + _AT_ONCE, len(found.episodes)), len(found.episodes))
    return Chosen(read, tuple(sorted(lost)))


def choose_episodes(settings: Settings, choice: Choice, patience: Patience) -> list[Received[EpisodeMaterialized]]:
    """Both, for those who need no numbers: what can be trained on. Raises what they raise."""
    return read_episodes(settings, find_episodes(settings, choice, patience), patience).episodes


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
