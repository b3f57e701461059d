"""Frames to the object store, before the event that refers to them goes to Kafka; for the publisher.

Nobody knows of an object whose event waits here, so `sop gc` may take it once its grace is over. Therefore objects
are put right before their event is sent, and again if Kafka took longer than `REFRESH` to have it. Files stay
until Kafka has the episode's end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from infra.clock import Clock
from infra.errors import ObjectStoreUnavailable
from producers.frames.directory import EpisodeFolder, FrameDirectory
from producers.spool.recovery import writer_schema
from producers.spool.segment import Row
from schemas.codec import decode
from schemas.errors import UndecodableEvent
from schemas.events import EpisodeBoundary, EpisodeEnded, FrameSegment, FramesRecorded
from schemas.topics import ROBOT_EPISODES

REFRESH = 3600.0
"""Seconds after which an object that was put counts as not put; the grace of `sop gc` must be longer."""
AT_ONCE = 4
# Puts in a row that went well before one more goes at once: a link that bears no more costs a put's whole time.
_GROW_AFTER = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

_log = structlog.get_logger(__name__)


class Objects(Protocol):
    """What is needed of `infra.object_store.ObjectStore`."""

    def key(self, uri: str) -> str:
        """Key of an address."""

    def put(self, key: str, data: bytes) -> str:
        """Store an object."""


@dataclass
class _Put:
    """Files of one event, by what is left of them to do; one was last stored at `latest` (monotonic seconds)."""

    files: dict[Path, str]
    waiting: deque[Path] = field(default_factory=deque)
    under_way: dict[Path, Future[None]] = field(default_factory=dict)
    latest: float = 0.0

    def __post_init__(self) -> None:
        self.waiting.extend(self.files)

    @property
    def is_stored(self) -> bool:
        return not self.waiting and not self.under_way

    def again(self) -> None:
        """What is there may have been collected meanwhile."""
        self.waiting = deque(path for path in self.files if path not in self.under_way)


class FrameUploads:
    """Holds events back whose frames are not in the object store yet, and tidies up behind them."""

    def __init__(self, directory: FrameDirectory, connect: Callable[[], Objects], clock: Clock) -> None:
        self._directory = directory
        self._connect = connect
        self._objects: Objects | None = None
        self._clock = clock
        self._pool: ThreadPoolExecutor | None = None
        self._puts: dict[int, _Put] = {}
        self._at_once = AT_ONCE
        self._went_well = 0
        self._ends: dict[int, EpisodeFolder] = {}
        self._again_at = 0.0
        self._pause = _FIRST_PAUSE
        self._error: str | None = None

    def error(self) -> str | None:
        """Why frames are not in the object store, in words."""
        return f"the object store takes no frames, they are tried again: {self._error}" if self._error else None

    def ready(self, row: Row) -> bool:
        """Whether an event may be sent: what it refers to is stored. Ask again if not."""
        if row.kind.topic != ROBOT_EPISODES:
            return True
        put = self._puts.get(row.position)
        if put is None:
            try:
                event = decode(EpisodeBoundary, row.body, writer_schema(row.kind))
            except UndecodableEvent:
                return True  # the consumer's to bury
            folder = self._directory.episode(event.episode_id)
            if isinstance(event.body, EpisodeEnded) and folder.path.is_dir():
                self._ends[row.position] = folder
            if not isinstance(event.body, FramesRecorded):
                return True
            put = self._puts[row.position] = _Put(self._files(folder, event.body.segments))
        return self._stored(put)

    def acknowledged(self, position: int) -> None:
        """Kafka has everything up to `position`: folders of episodes that have ended go."""
        for at in [at for at in self._puts if at <= position]:
            if not self._stored(self._puts[at]):
                return  # Kafka was away for so long that what was put may be collected: first once more
            del self._puts[at]
        for at in [at for at in self._ends if at <= position]:
            self._ends.pop(at).remove()

    def _files(self, folder: EpisodeFolder, segments: tuple[FrameSegment, ...]) -> dict[Path, str]:
        return {folder.file(segment): segment.uri for segment in segments if segment.uri is not None}

    def _stored(self, put: _Put) -> bool:
        """Whether it is there; sees to it that it soon is."""
        now = self._clock.monotonic()
        self._collect(put, now)
        if len(put.waiting) + len(put.under_way) < len(put.files) and now - put.latest >= REFRESH:
            put.again()
        if put.is_stored:
            return True
        if now >= self._again_at:
            self._submit(put)
        return False

    def _submit(self, put: _Put) -> None:
        if self._pool is None:
            self._objects = self._connect()
            self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="frames")
        under_way = sum(len(other.under_way) for other in self._puts.values())
        for _ in range(min(len(put.waiting), self._at_once - under_way)):
            path = put.waiting.popleft()
            put.under_way[path] = self._pool.submit(self._put, path, put.files[path])

    def _collect(self, put: _Put, now: float) -> None:
        """Take in what is over: what is there stays there, whatever becomes of the others."""
        for path in [path for path, future in put.under_way.items() if future.done()]:
            error = put.under_way.pop(path).exception()
            if error is None:
                put.latest, self._pause = now, _FIRST_PAUSE
                self._went_well += 1
                if self._went_well % _GROW_AFTER == 0:
                    self._at_once = min(AT_ONCE, self._at_once + 1)
            else:
                put.waiting.append(path)
                self._failed(str(error), now)
        if put.is_stored:
            self._error = None

    def _failed(self, error: str, now: float) -> None:
        if self._error != error:
            _log.warning("frames_not_stored", error=error)
        self._error = error
        self._went_well = 0
        self._at_once = max(1, self._at_once // 2)  # on a slow link they take one another's time
        if now >= self._again_at:  # else others failed with it, and the pause is theirs, too
            self._again_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _put(self, path: Path, uri: str) -> None:
        assert self._objects is not None  # noqa: S101
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # Sent before, by a publisher that was killed before it had said so; or somebody removed it, and
            # `sop reconcile` will name it.
            _log.info("frames_gone", path=str(path))
            return
        try:
            self._objects.put(self._objects.key(uri), data)
        except ValueError as error:  # recorded for a bucket that is not this one's
            raise ObjectStoreUnavailable(str(error)) from error
