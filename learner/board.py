"""What the learner reports as curves for TensorBoard, in `DIRECTORY/<policy line>/`.

Every start writes a file of its own. It begins by saying from which step on it counts, so that what a learner that
was killed had drawn beyond is shown no longer, and no step is shown twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import structlog
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from schemas.events import TrainingProgress

# As TensorBoard's own writer says: sessions are told apart by their begin, not by steps that go down.
_FILE_VERSION = "brain.Event:2"

_log = structlog.get_logger(__name__)


class Board:
    """Curves of one policy line. A disk that fails costs points, never training."""

    def __init__(self, directory: Path, policy: str) -> None:
        """Nothing is written before there is something to show."""
        self._folder = directory / policy
        self._writer: RecordWriter | None = None

    def show(self, event: TrainingProgress, first_step: int) -> None:
        """A report of the updates from `first_step` on; it is a point of each curve, at its learner step."""
        try:
            if self._writer is None:
                self._writer = self._begin(event, first_step)
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves(event)]
            self._write(_at(event, event.learner_step, summary=Summary(value=values)), self._writer)
            self._writer.flush()
        except OSError as error:
            _log.warning("curves_not_written", folder=str(self._folder), error=str(error))
            self._writer = None

    def close(self) -> None:
        """No more points."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # each point was written out, or its loss was said
                self._writer.close()
            self._writer = None

    def _begin(self, event: TrainingProgress, first_step: int) -> RecordWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names; two learners of a line never share one.
        number = len(list(self._folder.iterdir()))
        writer = RecordWriter(str(self._folder / f"events.out.tfevents.{number:010d}.{os.getpid()}"))
        self._write(_at(event, first_step, file_version=_FILE_VERSION), writer)
        self._write(_at(event, first_step, session_log=SessionLog(status=SessionLog.START)), writer)
        return writer

    def _write(self, event: Event, writer: RecordWriter) -> None:
        writer.write(event.SerializeToString())


def curves(event: TrainingProgress) -> Iterator[tuple[str, float]]:
    """Names and values of the points that a report makes; means are over the time since the last one."""
    yield "loss", event.loss
    yield "online_share", event.online_share
    for group in event.groups:
        yield f"loss_by_task/{group.task}/{'online' if group.online else 'offline'}", group.loss
    for task in event.mixing:
        yield f"online_share_by_task/{task.task}", sum(task.online_shares) / len(task.online_shares)
    yield "updates_skipped", event.updates_skipped
    for metric in event.metrics:
        yield f"metrics/{metric.name}", metric.value
    yield "data/episodes_admitted", event.episodes_admitted
    yield "data/steps_admitted", event.steps_admitted
    if event.simulated_seconds is not None:
        yield "data/simulated_seconds", event.simulated_seconds


def _at(event: TrainingProgress, step: int, **content: object) -> Event:
    return Event(wall_time=event.reported_at.timestamp(), step=step, **content)
