"""How much the spool may hold: a bound of its own, and room that the disk must keep for others."""

from __future__ import annotations

import os
from dataclasses import dataclass

from infra.settings import RobotSettings
from producers.errors import SpoolFull, SpoolUnusable
from producers.spool.directory import SpoolDirectory
from producers.spool.framing import OVERHEAD
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.segment import header_frame

# W3C's traceparent.
_TRACE = 55
# Steps beyond an episode's `max_steps` that one look at the disk allows: ten seconds at 50 Hz.
_GRANTED = 500
# Starts, ends and interventions: some hundred.
_EDGES = 256 * 1024
_HEADER = len(header_frame({}, tuple(NEWEST_KINDS.values()))) + 1024


def event_bytes(body: int) -> int:
    """Disk that an event with a body of so many bytes takes."""
    return OVERHEAD + _TRACE + body


@dataclass
class Room:
    """Decides what may still be recorded.

    An episode's room is taken from the disk when the episode begins (a file that holds nothing), so that others
    who fill the disk do not reach it. It is given back to the spool the moment the disk is full.
    """

    directory: SpoolDirectory
    settings: RobotSettings
    left: int = 0
    """Steps that room is still kept for, or was seen."""
    step: int = 1
    """Bytes that a step of the episode takes."""

    def reserve(self, events: int, body: int, frame_bytes: int = 0) -> int:
        """Keep room for so many steps with bodies of so many bytes, and for what comes between them.

        Frames must fit as well, with `frame_bytes` for the episode; nothing is kept for them, they give way.
        Returned are the bytes that they may take.

        Raises:
            SpoolFull: there is none.
            SpoolUnusable: nobody can say.
        """
        self.left, self.step = 0, event_bytes(body)
        need = events * event_bytes(body) + _EDGES
        need += (need // self.settings.segment_bytes + 2) * _HEADER
        used, free = self._measured(kept=True)
        where = self.directory.path
        together = need + frame_bytes
        if together > self.settings.max_spool_bytes:
            raise SpoolFull(
                f"no room for {events} steps, ever: max_steps={events} of these features need {_mb(together)}, "
                f"{_mb(frame_bytes)} of it for frames, and {where} may hold "
                f"{_mb(self.settings.max_spool_bytes)}. Give client.episode() a max_steps nearer to the episode's "
                f"length, or raise SOP_ROBOT__MAX_SPOOL_BYTES"
            )
        if used + together > self.settings.max_spool_bytes:
            raise SpoolFull(
                f"no room for {events} steps: {where} holds {_mb(used)} of at most "
                f"{_mb(self.settings.max_spool_bytes)}, and {_mb(together)} are needed. Wait until Kafka has "
                f"taken some (see the heartbeat's spool_depth), lower max_steps, or raise "
                f"SOP_ROBOT__MAX_SPOOL_BYTES"
            )
        if free - together < self.settings.min_free_bytes:
            raise SpoolFull(
                f"no room for {events} steps: the disk of {where} has {_mb(free)} left, {_mb(together)} are "
                f"needed and {_mb(self.settings.min_free_bytes)} stay free. Free some, or lower "
                f"max_steps or SOP_ROBOT__MIN_FREE_BYTES"
            )
        try:
            self._truncate(need)
        except OSError as error:
            self._truncate(0)
            raise SpoolFull(f"no room for {events} steps on the disk of {where}: {error}") from error
        self.left = events
        return self.settings.max_spool_bytes - used - need

    def take(self) -> None:
        """A step is about to be recorded.

        Raises:
            SpoolFull: it is beyond what room was kept for, and there is none.
            SpoolUnusable: likewise, and nobody can say.
        """
        if self.left > 0:
            self.left -= 1
        else:
            self.left = self._steps_with_room() - 1

    def give_up_reserve(self) -> bool:
        """The disk is full: give the room that was kept to the spool; False if that was done."""
        if self._kept() == 0:
            return False
        self._truncate(0)
        return True

    def reserve_nothing(self) -> None:
        """No episode is open any more."""
        self.left = 0
        self._truncate(0)

    def warning(self) -> str | None:
        """In words, when little is left, or nobody can say how much."""
        try:
            used, free = self._measured()
        except SpoolUnusable as error:
            return str(error)
        limit, floor = self.settings.max_spool_bytes, self.settings.min_free_bytes
        if used > self.settings.warn_fraction * limit:
            return f"the spool holds {_mb(used)} of at most {_mb(limit)}"
        if free < floor / self.settings.warn_fraction:
            return f"the spool's disk has {_mb(free)} left; below {_mb(floor)} no episode begins"
        return None

    def _measured(self, *, kept: bool = False) -> tuple[int, int]:
        """Bytes that the spool holds, and those that the disk has left, with what is `kept` if asked for."""
        try:
            free = self.directory.free_bytes() + (self._kept() if kept else 0)
            return self.directory.used_bytes(), free
        except OSError as error:
            raise SpoolUnusable(f"the spool {self.directory.path} cannot be measured: {error}") from error

    def _steps_with_room(self) -> int:
        """Steps that fit without another look, 1 at least."""
        used, free = self._measured()
        if used > self.settings.max_spool_bytes or free < self.settings.min_free_bytes:
            raise SpoolFull(
                f"the step is beyond the room that was kept, and the spool is full ({_mb(used)} held, {_mb(free)} "
                f"free on its disk); it was not recorded"
            )
        room = min(self.settings.max_spool_bytes - used, free - self.settings.min_free_bytes)
        return max(1, min(_GRANTED, room // self.step))

    def _kept(self) -> int:
        """Bytes that the reserve takes."""
        try:
            return self.directory.reserve_file.stat().st_size
        except FileNotFoundError:
            return 0

    def _truncate(self, size: int) -> None:
        descriptor = os.open(self.directory.reserve_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if size > os.fstat(descriptor).st_size:
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
