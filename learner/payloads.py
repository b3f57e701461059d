"""Payloads of announced episodes, fetched and decoded ahead in the background, so that admitting one costs little.

With them come the segments of the cameras that training sees; their images stay encoded.

In memory are a bounded number of decoded episodes; what is announced beyond goes to the disk cache, if there is.
Whether a payload came from there or from the object store, and when, nobody can tell by what is taken.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog

from infra.backoff import Backoff
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.footage import FramesUnusable
from infra.object_store import ObjectStore
from infra.telemetry import PAYLOADS_READ, UNAVAILABLE
from learner.cache import PayloadCache
from learner.episodes import Episode, EpisodeRecord, decode_payload, require_hash
from learner.errors import BadPayload
from learner.patience import Patience
from learner.tracks import CachedSegments, tracks_of, warm

_LOOK_SECONDS = 0.1
_WINDOW = 64
# An encoded image of 224×224 takes some 2 KB, vectors of 32 + 14 floats with what belongs to them 0.2 KB.
_STEPS_OF_AN_IMAGE = 10
_NOW, _SOON, _CLOSED = 0, 1, 2

_log = structlog.get_logger(__name__)

Key = tuple[str, int]


class PayloadFetcher:
    """Fetches, verifies and decodes payloads on a few threads; outages are waited out there.

    `whole` means something to one that shares the work with other ranks (`learner.ranks`).
    At most `ahead` episodes of together about `ahead_steps` steps are held that nobody took. A step with a camera
    counts for `_STEPS_OF_AN_IMAGE` more.

    Attributes:
        cameras: what else is wanted of each episode; set before the first one is asked for.
    """

    whole = True
    cameras: tuple[str, ...] = ()

    def __init__(
        self,
        store: ObjectStore,
        patience: Patience,
        *,
        cache: PayloadCache | None = None,
        threads: int = 4,
        ahead: int = 512,
        ahead_steps: int = 250_000,
    ) -> None:
        self._store = store
        self._patience = patience
        self._cache = cache
        self._segments = CachedSegments(store, cache)
        self._ahead, self._ahead_steps = ahead, ahead_steps
        self._asked: queue.PriorityQueue[tuple[int, int, EpisodeRecord | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._under_way: dict[Key, int] = {}
        self._steps = 0
        self._results: dict[Key, Episode | Exception] = {}
        self._refused: dict[Key, str] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._threads = threads
        for number in range(threads):
            threading.Thread(target=self._work, name=f"payloads-{number}", daemon=True).start()

    @contextmanager
    def taken_whole(self, really: bool = True) -> Iterator[None]:
        """While this lasts, all payloads are read by this process, whichever rank they belong to."""
        before = self.whole
        self.whole = before or really
        try:
            yield
        finally:
            self.whole = before

    @property
    def steps_under_way(self) -> int:
        """Of the episodes that memory holds, or will; see above."""
        return self._steps

    def prefetch(self, record: EpisodeRecord) -> None:
        """Fetch this one soon: into memory if there is room, else onto the disk."""
        with self._changed:
            if self._has_room(record):
                self._ask(record)
            elif self._cache is not None:
                self._asked.put((_SOON, next(self._order), record))

    def ask_while_room(self, record: EpisodeRecord) -> bool:
        """Have it fetched into memory if there is room; whether there is, or it is on its way already."""
        with self._changed:
            if key_of(record) not in self._under_way and not self._has_room(record):
                return False
            self._ask(record)
            return True

    def ready(self, record: EpisodeRecord) -> bool:
        """Whether `take` would return at once; asks for the payload if nobody did."""
        with self._changed:
            self._ask(record)
            return key_of(record) in self._results

    def take(self, record: EpisodeRecord) -> Episode:
        """The episode, waited for as long as the object store takes to come back.

        Raises:
            BadPayload: missing, altered, or not what was announced.
            Stopped: a stop was asked for.
            Exception: whatever else went wrong while it was fetched; that is no fault of the payload's.
        """
        key = key_of(record)
        self._patience.check()  # whoever takes thousands that are all here works, too
        with self._changed:
            self._ask(record)
            while key not in self._results:
                self._patience.check()
                self._changed.wait(_LOOK_SECONDS)
            self._forget(key)
            result = self._results.pop(key)
        if isinstance(result, Exception):
            raise result
        return result

    def wait_for(self, record: EpisodeRecord, seconds: float) -> bool:
        """Whether `take` would return at once, after at most so many seconds.

        Raises:
            Stopped: a stop was asked for.
        """
        until = time.monotonic() + seconds
        with self._changed:
            self._ask(record)
            while key_of(record) not in self._results and time.monotonic() < until:
                self._patience.check()
                self._changed.wait(_LOOK_SECONDS)
            return key_of(record) in self._results

    def refused(self, record: EpisodeRecord) -> str:
        """Why a payload that was asked for does not come; empty: nothing is known to stand in its way."""
        with self._changed:
            return self._refused.get(key_of(record), "")

    def take_all(self, records: Iterable[EpisodeRecord]) -> Iterator[tuple[EpisodeRecord, Episode | BadPayload]]:
        """Episodes in the given order, each fetched while those before are used; bad ones as their error."""
        coming, waiting = iter(records), deque[EpisodeRecord]()
        while True:
            while len(waiting) < min(self._ahead, _WINDOW) and (record := next(coming, None)) is not None:
                self.prefetch(record)
                waiting.append(record)
            if not waiting:
                return
            record = waiting.popleft()
            try:
                yield record, self.take(record)
            except BadPayload as error:
                yield record, error

    def drop(self, record: EpisodeRecord) -> None:
        """Forget a payload that nobody will take."""
        with self._changed:
            self._forget(key_of(record))
            self._results.pop(key_of(record), None)

    def close(self) -> None:
        """Let the threads end; one that waits on a server that hangs is left behind."""
        self._closed.set()
        for _ in range(self._threads):
            self._asked.put((_CLOSED, next(self._order), None))

    def _has_room(self, record: EpisodeRecord) -> bool:
        few = not self._under_way or self._steps + self._size(record) <= self._ahead_steps
        return few and len(self._under_way) < self._ahead

    def _size(self, record: EpisodeRecord) -> int:
        return record.step_count * (1 + _STEPS_OF_AN_IMAGE * len(self.cameras))

    def _ask(self, record: EpisodeRecord) -> None:
        if key_of(record) not in self._under_way:
            self._under_way[key_of(record)] = self._size(record)
            self._steps += self._size(record)
            self._asked.put((_NOW, next(self._order), record))

    def _forget(self, key: Key) -> None:
        self._steps -= self._under_way.pop(key, 0)
        self._note(key, None)

    def _note(self, key: Key, refused: str | None) -> None:
        """Why a payload does not come, or None; what does not for longest is what the process waits for."""
        if refused is None:
            self._refused.pop(key, None)
        else:
            self._refused[key] = refused
        self._patience.held_up(next(iter(self._refused.values()), ""), "payload")

    def _work(self) -> None:
        while not self._closed.is_set():
            urgency, _, record = self._asked.get()
            if record is None:
                return
            if urgency == _SOON:
                self._warm(record)
                continue
            with self._changed:
                if key_of(record) not in self._under_way:
                    continue  # dropped
            result = self._fetch(record)
            if result is None:
                continue
            with self._changed:
                self._note(key_of(record), None)
                if key_of(record) in self._under_way:
                    self._results[key_of(record)] = result
                    self._changed.notify_all()

    def _warm(self, record: EpisodeRecord) -> None:
        """Have a payload in the cache. What goes wrong here will go wrong again when it is taken, and be said."""
        if self._cache is None or (not self.cameras and self._cache.holds(record.payload_sha256)):
            return
        try:
            data = self._cache.get(record.payload_sha256) if self.cameras else None
            if data is None:
                data = self._store.get(self._store.key(record.payload_uri))
                require_hash(data, record)
                self._cache.put(record.payload_sha256, data)
            if self.cameras:
                warm(data, self.cameras, self._segments)
        except Exception as error:  # noqa: BLE001 - see above
            _log.debug("payload_not_warmed", uri=record.payload_uri, error=str(error))

    def _fetch(self, record: EpisodeRecord) -> Episode | Exception | None:
        """The episode, or why it is none; None once closed, or dropped."""
        backoff = Backoff()
        while not self._closed.is_set() and key_of(record) in self._under_way:
            try:
                data = self._verified(record)
                frames = decode_payload(data, record)
                return Episode(record, frames, tracks_of(data, self.cameras, self._segments))
            except ObjectStoreUnavailable as error:
                UNAVAILABLE.labels("object store").inc()
                pause, uri = backoff.failed(), record.payload_uri
                _log.warning(
                    "waiting_for_server", server="object store", uri=uri, error=str(error), retry_in=pause
                )
                with self._changed:
                    if key_of(record) in self._under_way:
                        self._note(key_of(record), f"{uri}: {error}")
                self._closed.wait(pause)
            except BadPayload as error:
                return error
            except (ObjectMissing, FramesUnusable, ValueError) as error:
                return BadPayload(f"{record.payload_uri}: {error}")
            except Exception as error:  # noqa: BLE001 - carried to whoever takes the payload, who would wait for ever
                return error
        return None

    def _verified(self, record: EpisodeRecord) -> bytes:
        """The payload's bytes, of the hash that was announced."""
        cached = self._cache.get(record.payload_sha256) if self._cache is not None else None
        PAYLOADS_READ.labels("store" if cached is None else "cache").inc()
        if cached is not None:
            return cached
        data = self._store.get(self._store.key(record.payload_uri))
        require_hash(data, record)
        if self._cache is not None:
            self._cache.put(record.payload_sha256, data)
        return data


def key_of(record: EpisodeRecord) -> Key:
    """Under which a payload is asked for and held."""
    return record.episode_id, record.revision
