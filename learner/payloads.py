"""Payloads of announced episodes, fetched ahead in the background, so that admitting one costs little."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import structlog

from infra.backoff import Backoff
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.object_store import ObjectStore
from infra.telemetry import UNAVAILABLE
from learner.episodes import Episode, EpisodeRecord, read_payload
from learner.errors import BadPayload
from learner.patience import Patience

_LOOK_SECONDS = 0.1
_CLOSED = None

_log = structlog.get_logger(__name__)

Key = tuple[str, int]


class PayloadFetcher:
    """Fetches, verifies and decodes payloads on a few threads; outages are waited out there.

    At most `ahead` payloads are held that nobody took: what is announced beyond is fetched when it is taken.
    """

    def __init__(self, store: ObjectStore, patience: Patience, *, threads: int = 4, ahead: int = 512) -> None:
        self._store = store
        self._patience = patience
        self._ahead = ahead
        self._asked: queue.SimpleQueue[EpisodeRecord | None] = queue.SimpleQueue()
        self._under_way: set[Key] = set()
        self._results: dict[Key, Episode | Exception] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._threads = threads
        for number in range(threads):
            threading.Thread(target=self._work, name=f"payloads-{number}", daemon=True).start()

    def prefetch(self, record: EpisodeRecord) -> None:
        """Fetch this one soon, if there is room."""
        with self._changed:
            if len(self._under_way) < self._ahead:
                self._ask(record)

    def ready(self, record: EpisodeRecord) -> bool:
        """Whether `take` would return at once; asks for the payload if nobody did."""
        with self._changed:
            self._ask(record)
            return _key(record) in self._results

    def take(self, record: EpisodeRecord) -> Episode:
        """The episode, waited for as long as the object store takes to come back.

        Raises:
            BadPayload: missing, altered, or not what was announced.
            Stopped: a stop was asked for.
            Exception: whatever else went wrong while it was fetched; that is no fault of the payload's.
        """
        key = _key(record)
        with self._changed:
            self._ask(record)
            while key not in self._results:
                self._patience.check()
                self._changed.wait(_LOOK_SECONDS)
            self._under_way.discard(key)
            result = self._results.pop(key)
        if isinstance(result, Exception):
            raise result
        return result

    def take_all(self, records: Sequence[EpisodeRecord]) -> Iterator[tuple[EpisodeRecord, Episode | BadPayload]]:
        """Episodes in the given order, each fetched while those before are used; bad ones as their error."""
        window = min(self._ahead, 64)
        for record in records[:window]:
            self.prefetch(record)
        for number, record in enumerate(records):
            try:
                yield record, self.take(record)
            except BadPayload as error:
                yield record, error
            for following in records[number + window : number + window + 1]:
                self.prefetch(following)

    def drop(self, record: EpisodeRecord) -> None:
        """Forget a payload that nobody will take."""
        with self._changed:
            self._under_way.discard(_key(record))
            self._results.pop(_key(record), None)

    def close(self) -> None:
        """Let the threads end; one that waits on a server that hangs is left behind."""
        self._closed.set()
        for _ in range(self._threads):
            self._asked.put(_CLOSED)

    def _ask(self, record: EpisodeRecord) -> None:
        if _key(record) not in self._under_way:
            self._under_way.add(_key(record))
            self._asked.put(record)

    def _work(self) -> None:
        while (record := self._asked.get()) is not _CLOSED:
            result = self._fetch(record)
            if result is None:
                return
            with self._changed:
                if _key(record) in self._under_way:
                    self._results[_key(record)] = result
                    self._changed.notify_all()

    def _fetch(self, record: EpisodeRecord) -> Episode | Exception | None:
        """The episode, or why it is none; None once closed."""
        backoff = Backoff()
        while not self._closed.is_set():
            try:
                data = self._store.get(self._store.key(record.payload_uri))
                return Episode(record, read_payload(data, record))
            except ObjectStoreUnavailable as error:
                UNAVAILABLE.labels("object store").inc()
                pause = backoff.failed()
                _log.warning("waiting_for_server", server="object store", error=str(error), retry_in=pause)
                self._closed.wait(pause)
            except BadPayload as error:
                return error
            except (ObjectMissing, ValueError) as error:
                return BadPayload(f"{record.payload_uri}: {error}")
            except Exception as error:  # noqa: BLE001 - carried to whoever takes the payload, who would wait for ever
                return error
        return None


def _key(record: EpisodeRecord) -> Key:
    return record.episode_id, record.revision
