"""A robot's own account of what it did: JSON lines on its disk, against which the pipeline is checked.

A line is written after the client's call returned, with numbers that the robot's loop counted itself. The last
line, `closed`, is written once Kafka has acknowledged everything; a ledger without it proves nothing.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from schemas.events import EpisodeSource


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    at: datetime


class Opened(_Entry):
    """The robot's program began."""

    kind: Literal["opened"] = "opened"
    robot_id: str
    boot_epoch: int


class PhaseBegan(_Entry):
    """It turned to another part of its work, or came to a boundary of simulated time and waits."""

    kind: Literal["phase"] = "phase"
    phase: str


class Started(_Entry):
    """`client.episode()` returned."""

    kind: Literal["started"] = "started"
    episode_id: str
    task: str
    source: EpisodeSource


class Ended(_Entry):
    """`episode.end()` returned; the counts are of `step()` and `begin()` calls that returned."""

    kind: Literal["ended"] = "ended"
    episode_id: str
    task: str
    source: EpisodeSource
    policy_version: int
    steps: int
    human_steps: int
    interventions: int
    success: bool
    simulated_at: float | None = None
    layout: int = Field(description="seed of the episode's layout; names it within the evaluation's fixed set")


class Activated(_Entry):
    """`client.activate()` returned."""

    kind: Literal["activated"] = "activated"
    version: int


class Closed(_Entry):
    """`client.close()` returned: every event is acknowledged by Kafka."""

    kind: Literal["closed"] = "closed"


Entry = Annotated[Opened | PhaseBegan | Started | Ended | Activated | Closed, Field(discriminator="kind")]
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


class Ledger:
    """Appends entries to a file; each is with the operating system when `write` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        self._file.write(entry.model_dump_json() + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


class LedgerReader:
    """Follows a ledger that grows; a line that is not finished yet is left for the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.entries: list[Entry] = []

    def refresh(self) -> list[Entry]:
        """Read what came since the last call; all entries so far.

        Raises:
            pydantic.ValidationError: a line is not an entry.
        """
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            self.entries.extend(_ENTRY.validate_json(line) for line in whole.splitlines())
        return self.entries
