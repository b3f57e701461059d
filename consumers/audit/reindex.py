"""`sop reindex`: ClickHouse rebuilt from the committed topics, or from the object store alone.

Safe to run again, and beside a live `sop index`: every table keeps the newest of what is inserted twice. What was
inserted before a run was cut off stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice

import structlog

from consumers.audit.announced import episode_of
from consumers.audit.loading import RowLoader
from consumers.audit.progress import Stages
from consumers.audit.reading import scan, size_of, spans_of
from consumers.audit.rows import NOT_ON_THE_STREAM
from consumers.facts import EpisodeFacts
from consumers.payload import PayloadUnreadable, read_facts
from consumers.ranges import RangeSet
from consumers.rows import TableRow, rows_of, rows_of_message
from infra.errors import ObjectMissing
from infra.kafka import LogReader
from infra.object_store import Entry, ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.topics import INDEX_TOPICS

READERS = 8
"""Objects that are read at the same time; each is in memory once."""

_log = structlog.get_logger(__name__)


@dataclass
class Rebuilt:
    """What a run did: rows by table, and what could not become a row, by reason."""

    rows: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def reindex_from_stream(settings: Settings, stages: Stages | None = None) -> Rebuilt:
    """Insert everything that the committed topics hold now.

    Raises:
        infra.errors.Unavailable: a server does not answer; run it again.
        infra.errors.DeploymentConflict: tables are missing.
    """
    done, registry = Rebuilt(), Registry(settings.registry)
    reader = LogReader(settings.kafka, "reindex")
    try:
        spans = spans_of(reader, INDEX_TOPICS)
        with (
            (stages or Stages()).stage("committed topics", size_of(spans)) as advance,
            RowLoader(settings.clickhouse) as loader,
        ):
            for messages in scan(reader, spans, advance):
                for message in messages:
                    try:
                        loader.add(rows_of_message(message, registry))
                    except (SchemaError, KeyError, ValueError, TypeError) as error:
                        # `sop index` put it on dead-letters when it came by.
                        done.skipped[f"{message.topic()}: {type(error).__name__}"] += 1
    finally:
        reader.close()
    return _finished(done, loader)


def reindex_from_objects(settings: Settings, stages: Stages | None = None) -> Rebuilt:
    """Insert the episodes and interventions that the payloads tell of; for when there is no Kafka any more.

    An object says everything of its episode but whether it was announced, and when: `materialized_at` is when it
    was stored. Of several objects of one revision the one that holds most events counts.

    Raises:
        infra.errors.Unavailable: a server does not answer; run it again.
        infra.errors.DeploymentConflict: tables are missing.
    """
    done, objects, stages = Rebuilt(), ObjectStore(settings.s3), stages or Stages()
    with stages.stage("listing", None) as advance:
        total = 0
        for _ in _newest(objects.entries("episodes/")):
            total += 1
            advance(1)
    with (
        stages.stage("objects", total) as advance,
        RowLoader(settings.clickhouse) as loader,
        ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool,
    ):
        episodes = _newest(objects.entries("episodes/"))
        while wave := list(islice(episodes, READERS * 8)):
            for found in pool.map(lambda entries: _rows_of_objects(objects, entries), wave):
                advance(1)
                if isinstance(found, str):
                    done.skipped[found] += 1
                else:
                    loader.add(found)
    return _finished(done, loader)


def _finished(done: Rebuilt, loader: RowLoader) -> Rebuilt:
    done.rows = loader.inserted
    if loader.refused:
        done.skipped["refused by ClickHouse"] = loader.refused
    return done


def _newest(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """For each episode the objects of its highest revision, usually one. Keys come sorted."""
    for _, group in groupby(entries, key=lambda entry: entry.key.rsplit("/", 1)[0]):
        named = [(found[1], entry) for entry in group if (found := episode_of(entry.key)) is not None]
        if named:
            highest = max(revision for revision, _ in named)
            yield [entry for revision, entry in named if revision == highest]


def _rows_of_objects(objects: ObjectStore, entries: list[Entry]) -> list[TableRow] | str:
    """Rows of the best of these objects; what is wrong if none is good."""
    best: tuple[int, Entry, EpisodeFacts] | None = None
    problem = "gone meanwhile"
    for entry in entries:
        try:
            data = objects.get(entry.key)
            if sha256_hex(data) != _sha256_of(entry.key):
                raise PayloadUnreadable("its bytes are not those that its name says")
            facts = read_facts(data)
        except ObjectMissing:
            continue
        except PayloadUnreadable as error:
            problem = "unreadable"
            _log.warning("object_passed_over", key=entry.key, error=str(error))
            continue
        size = RangeSet.of((*facts.sequences, *facts.rejected)).count() + len(facts.labels)
        if best is None or (size, entry.modified) > (best[0], best[1].modified):
            best = size, entry, facts
    if best is None:
        return problem
    _, entry, facts = best
    event = facts.announcement(
        uri=objects.uri(entry.key), sha256=_sha256_of(entry.key), size=entry.size, at=entry.modified
    )
    return rows_of(event, facts.source_offsets[0].partition, NOT_ON_THE_STREAM)


def _sha256_of(key: str) -> str:
    return key.rsplit("-", 1)[-1].removesuffix(".parquet")
