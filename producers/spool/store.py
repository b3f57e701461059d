"""The robot's end of the spool: what earlier boots left is put in order, then events are appended.

`append` is called in the control loop, so all that waits for the disk (the next file, the one before) is done by a
thread beside it. Who appends is one thread.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading

import structlog

from infra.settings import RobotSettings
from producers.errors import SpoolFull, SpoolUnusable
from producers.outbox import Item, item
from producers.spool.directory import SpoolDirectory
from producers.spool.framing import pack
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.quota import Room
from producers.spool.recovery import closing_events, tail_of
from producers.spool.segment import Row, SegmentDamaged, SegmentReader, SegmentWriter, carry_frame
from producers.tail import Tail
from schemas.errors import UndecodableEvent
from schemas.topics import ROBOT_STEPS

# Seconds for the publisher of a client that was killed to notice it.
_PUBLISHER_PATIENCE = 10.0
# The disk, the quota on it, or what a process may write.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KIND_OF = {topic: number for number, topic in enumerate(NEWEST_KINDS)}

_log = structlog.get_logger(__name__)


class SpoolStore:
    """Appends the events of one boot; every position is above all earlier ones.

    Attributes:
        last: position of the newest event.
        recovered: episodes of earlier boots that were ended as ABORTED.

    Raises:
        SpoolFull: the disk has no room to begin.
        SpoolUnusable: the folder cannot be written, or somebody else holds its files.
    """

    def __init__(self, directory: SpoolDirectory, settings: RobotSettings, robot_id: str, boot_epoch: int) -> None:
        self.directory = directory
        self.room = Room(directory, settings)
        self.recovered = 0
        self._segment_bytes = settings.segment_bytes
        self._tail = Tail()
        self._steps = 0
        self._next: SegmentWriter | None = None
        self._old: list[SegmentWriter] = []
        self._closed = False
        # What wakes the helper takes no lock that an exception of a signal's could leave taken.
        self._work: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            with directory.exclusive(_PUBLISHER_PATIENCE):
                self._number = max(directory.numbers(), default=0)
                self.last = acknowledged = directory.acknowledged()
                directory.frames.wait_unused(_PUBLISHER_PATIENCE)
                self._recover()
                if self.last == acknowledged:
                    directory.frames.clear()  # Kafka has every event that could name them
            self._meta = {"robot_id": robot_id, "boot_epoch": str(boot_epoch)}
            self._segment = self._create(self._meta)
        except OSError as error:
            if error.errno in _FULL:
                raise SpoolFull(
                    f"the spool {directory.path} cannot be opened: {error}. Free some MiB on its disk, outside of "
                    f"it: what it holds is sent once it is open"
                ) from error
            raise SpoolUnusable(
                f"the spool {directory.path} cannot be opened: {error}. If another program has it open, close "
                f"that; else mend the disk"
            ) from error
        self._helper = threading.Thread(target=self._help, name="spool-files", daemon=True)
        self._helper.start()

    def append(self, entry: Item) -> int:
        """Record an event; its position. After any other exception than these two, `settle` comes before the next.

        Only steps are counted against the room that was kept: an end, or a human taking over, is refused by a disk
        that is full and by nothing else.

        Raises:
            SpoolFull: there is no room; it was not recorded.
            SpoolUnusable: the file cannot be written; it was not recorded.
        """
        topic, _, body, _, traceparent, taken_at, event = entry
        if topic == ROBOT_STEPS:
            self.room.take()
        position = self.last + 1
        frame = pack(position, _KIND_OF[topic], taken_at, traceparent, body)
        try:
            if self._segment.appended < self._segment_bytes:
                self._segment.append(frame)
            else:
                self._append_beyond(frame)
        except OSError as error:
            self._again(frame, error)
        self.last = position
        if event is None:
            self._steps += 1
        else:
            self._known_tail().note(event, traceparent)
        return position

    def settle(self) -> Tail:
        """What this boot has recorded, counted anew in its newest file.

        A signal's handler may raise between any two instructions, so also between a write and its count.

        Raises:
            SpoolUnusable: the file cannot be read; nothing may be appended before it can.
        """
        try:
            following = self._next
            if following is self._segment:
                following = self._next = None
            carry, rows = following.recount() if following is not None else (None, [])
            if following is not None and rows:
                self._go_on_with(following)
            else:
                carry, rows = self._segment.recount()
            self._tail, self._steps = tail_of(carry, rows), 0
        except (OSError, SegmentDamaged, UndecodableEvent) as error:
            raise SpoolUnusable(
                f"the spool {self.directory.path} cannot be read: {error}; what a signal interrupted is "
                f"not known, and nothing is recorded. Start the robot's client again"
            ) from error
        if rows:
            self.last = rows[-1].position
        return self._tail

    def close(self) -> None:
        """Let go of the files."""
        self._closed = True
        self._work.put(None)
        self._helper.join()
        self._old.append(self._segment)
        if self._next is not None:
            self._old.append(self._next)
        self._close_old()
        self.room.reserve_nothing()

    def _again(self, frame: bytes, error: OSError) -> None:
        """A write failed: with the room that was kept, once more."""
        full = error.errno in _FULL
        if full and self.room.give_up_reserve():
            _log.warning("spool_reserve_used", path=str(self.directory.path), error=str(error))
            try:
                self._append_beyond(frame)
                return
            except OSError as again:
                error = again
        why = SpoolFull if full else SpoolUnusable
        raise why(f"the spool {self.directory.path} takes no event: {error}; it was not recorded") from error

    def _append_beyond(self, frame: bytes) -> None:
        """To the next file, if this one has grown and the next is there."""
        # Who reads takes the file before for complete once the next one is touched, even in vain.
        following = self._next
        if self._segment.appended < self._segment_bytes or following is None:
            self._segment.append(frame)
            return
        following.append(carry_frame(self._known_tail().to_json()) + frame)
        self._go_on_with(following)

    def _go_on_with(self, following: SegmentWriter) -> None:
        self._old.append(self._segment)
        self._segment, self._next = following, None
        self._work.put(None)

    def _known_tail(self) -> Tail:
        """With the steps that were only counted, because it is a control loop that records them."""
        self._tail.note_steps(self._steps)
        self._steps = 0
        return self._tail

    def _create(self, meta: dict[str, str]) -> SegmentWriter:
        self._number += 1
        return SegmentWriter.create(self.directory.segment(self._number), meta, tuple(NEWEST_KINDS.values()))

    def _help(self) -> None:
        """Have the next file ready, and let go of the one before."""
        while not self._closed:
            patience = None
            try:
                if self._next is None:
                    self._next = self._create(self._meta)
                self._close_old()
            except OSError as error:
                # The file that is open goes on growing instead.
                _log.warning("spool_next_file_failed", path=str(self.directory.path), error=str(error))
                patience = 1.0
            with contextlib.suppress(queue.Empty):
                self._work.get(timeout=patience)

    def _close_old(self) -> None:
        while self._old:
            self._old[0].close()
            self._old.pop(0)

    def _recover(self) -> None:
        """End what the last boot left open, in its name; put damaged files aside and remove empty ones."""
        for number in reversed(self.directory.numbers()):
            path = self.directory.segment(number)
            try:
                reader = SegmentReader(path)
            except SegmentDamaged as error:
                self.directory.quarantine(number, str(error))
                continue
            try:
                rows = reader.read_all()
                if torn := reader.cut():
                    _log.info("spool_unfinished_event_cut_off", path=str(path), bytes=torn)
                if rows:
                    self.last = max(self.last, rows[-1].position)
                    self._end_open_episode(reader, rows)
                    return
                if reader.damage is None:
                    self.directory.delete(number)
            except UndecodableEvent as error:
                # What can be read is still sent; what is open there ends by the materializer's timeout.
                _log.error("spool_tail_unreadable", path=str(path), error=str(error))
                return
            finally:
                reader.close()

    def _end_open_episode(self, reader: SegmentReader, rows: list[Row]) -> None:
        tail = tail_of(reader.carry, rows)
        robot_id, epoch = reader.meta["robot_id"], int(reader.meta["boot_epoch"])
        footage = (
            None if tail.episode is None else self.directory.frames.episode(tail.episode.episode_id).footage()
        )
        closing = closing_events(tail, robot_id, epoch, rows[-1].taken_at, footage)
        if not closing or tail.episode is None:
            return
        segment = self._create({"robot_id": robot_id, "boot_epoch": str(epoch)})
        taken_at, trace = rows[-1].taken_at, tail.episode.traceparent.encode()
        frames = [carry_frame(tail.to_json())]
        for topic, event in closing:
            self.last += 1
            body = item(topic, robot_id, event, trace, taken_at).body
            frames.append(pack(self.last, _KIND_OF[topic], taken_at, trace, body))
        try:
            segment.append(b"".join(frames))
        finally:
            segment.close()
        self.recovered = 1
        _log.warning("episode_aborted", episode_id=tail.episode.episode_id, boot_epoch=epoch)
