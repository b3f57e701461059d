"""What a fleet is asked to do, what it did, and whether that is what was asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

# Below this share of the steps that were asked for, the machine did not keep up.
_KEPT = 0.99


class FleetPlan(BaseModel):
    """A fleet and its pace; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    robots: int = Field(ge=1, le=100_000)
    hz: float = Field(gt=0, le=1_000, description="control steps a second, of each robot")
    seconds: float | None = Field(None, gt=0, description="None: until it is stopped")
    episode_steps: int = Field(300, ge=1)
    state: int = Field(32, ge=1, le=65_536, description="elements of the state vector")
    action: int = Field(14, ge=1, le=65_536)
    prefix: str = Field("emulated", pattern=r"^[A-Za-z0-9_.-]{1,80}$")
    processes: int = Field(1, ge=1, le=512)
    heartbeat_interval: float = Field(5.0, gt=0)

    def names(self, process: int) -> list[str]:
        """The robots of one process."""
        return [f"{self.prefix}-{number:05d}" for number in range(process, self.robots, self.processes)]

    @property
    def steps_per_second(self) -> float:
        """Of the whole fleet."""
        return self.robots * self.hz


@dataclass(frozen=True, slots=True)
class Counts:
    """What one process, or all of them, have done since they began; seconds of CPU include Kafka's threads."""

    steps: int = 0
    skipped: int = 0
    episodes: int = 0
    unacknowledged: int = 0
    refused: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    """In which steps were due."""
    latest: float = 0.0
    """Seconds that a step came after its time, at most."""

    def plus(self, other: Counts) -> Counts:
        """Of two processes."""
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        most = {name: max(getattr(self, name), getattr(other, name)) for name in ("seconds", "latest")}
        return Counts(**{**added, **most})


@dataclass(frozen=True, slots=True)
class FleetReport:
    """A run: what was asked, and what came of it."""

    plan: FleetPlan
    counts: Counts

    @property
    def achieved(self) -> float:
        """Steps a second."""
        return self.counts.steps / self.counts.seconds if self.counts.seconds else 0.0

    @property
    def cpu_per_step(self) -> float:
        """Microseconds of CPU, all threads of the emulator's processes; NaN without steps."""
        return self.counts.cpu_seconds / self.counts.steps * 1e6 if self.counts.steps else math.nan

    def failures(self) -> list[str]:
        """Why this run was not what was asked for; empty when it was."""
        found = []
        due = self.counts.steps + self.counts.skipped
        if self.counts.steps < _KEPT * due:
            found.append(
                f"the machine did not keep up: {self.achieved:,.0f} of {self.plan.steps_per_second:,.0f} steps/s; "
                f"ask for fewer robots or a lower rate, or use more cores"
            )
        if self.counts.unacknowledged or self.counts.refused:
            found.append(
                f"{self.counts.unacknowledged} events were not acknowledged by Kafka, {self.counts.refused} were "
                f"refused; look at the brokers"
            )
        return found


def home(folder: Path, robot_id: str) -> Path:
    """A robot's own directory."""
    return folder / robot_id
