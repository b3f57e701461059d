"""The barrier of simulated time: who has arrived at boundary k, and when it opens. A pure object.

Only the simulated fleet uses it (`simulated_interval` is set). At each boundary the learner waits for the fleet
and the fleet for the learner, so that a slow machine changes wall time and not what is learned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from infra.clock import Clock
from learner.episodes import EpisodeRecord
from learner.set_aside import LeftOut
from schemas.events import EpisodeMaterialized, EpisodeSource, Heartbeat


@dataclass(frozen=True, slots=True)
class Opening:
    """Boundary `number` opens, at `simulated_seconds` = number * interval.

    left: robots that were silent for too long. missing: episodes by robot that were not waited for any longer.
    """

    number: int
    simulated_seconds: float
    left: tuple[str, ...]
    missing: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Robot:
    heartbeat: Heartbeat
    simulated_seconds: float
    heard_at: float


@dataclass
class Barrier:
    """Heartbeats and episodes in, a decision out.

    interval: simulated seconds between boundaries. robots: how many the fleet has.
    patience: wall seconds of silence after which a robot is no longer waited for, and of waiting for the episodes
    of robots that are all there. boundary: number of the boundary to open next, from 1.
    """

    interval: float
    robots: int
    patience: float
    clock: Clock
    boundary: int = 1
    _known: dict[str, _Robot] = field(default_factory=dict)
    _seen: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    _gathered_at: float | None = None

    def __post_init__(self) -> None:
        self._began_at = self.clock.monotonic()

    def hear(self, heartbeat: Heartbeat, age: float = 0.0) -> None:
        """A robot's heartbeat, `age` wall seconds old.

        Robots without simulated time take no part, nor do heartbeats older than the patience (the topic keeps
        each robot's last one for ever) or of an earlier boot.
        """
        if heartbeat.simulated_seconds is None or age > self.patience:
            return
        known = self._known.get(heartbeat.robot_id)
        if known is not None and known.heartbeat.boot_epoch > heartbeat.boot_epoch:
            return
        heard_at = self.clock.monotonic() - max(age, 0.0)
        self._known[heartbeat.robot_id] = _Robot(heartbeat, heartbeat.simulated_seconds, heard_at)

    def see(self, episode: EpisodeMaterialized | EpisodeRecord | LeftOut) -> None:
        """An episode was announced, in whatever revision; only online ones are counted."""
        if episode.source is EpisodeSource.ONLINE:
            self._seen.setdefault((episode.robot_id, episode.boot_epoch), set()).add(episode.episode_id)

    def decide(self) -> Opening | None:
        """The next boundary's opening, or None while it must be waited.

        It opens when every robot that is heard of waits at or past the boundary and all episodes that it has
        ended were seen. With nobody there it stays shut.
        """
        now = self.clock.monotonic()
        here = {name: robot for name, robot in self._known.items() if now - robot.heard_at <= self.patience}
        unheard = self.robots - len(self._known)
        if not here or (unheard > 0 and now - self._began_at <= self.patience):
            return None
        seconds = self.boundary * self.interval
        if not all(robot.heartbeat.waiting and robot.simulated_seconds >= seconds for robot in here.values()):
            self._gathered_at = None
            return None
        missing = tuple((name, count) for name in sorted(here) if (count := self._missing(here[name])) > 0)
        if missing:
            if self._gathered_at is None:
                self._gathered_at = now
            if now - self._gathered_at <= self.patience:
                return None
        opening = Opening(self.boundary, seconds, tuple(sorted(set(self._known) - set(here))), missing)
        self.boundary += 1
        self._gathered_at = None
        return opening

    def _missing(self, robot: _Robot) -> int:
        seen = self._seen.get((robot.heartbeat.robot_id, robot.heartbeat.boot_epoch), ())
        return robot.heartbeat.episodes_ended - len(seen)


class Announced(Protocol):
    """Whatever carries an announcement."""

    @property
    def event(self) -> EpisodeMaterialized:
        """The announcement."""
        ...


A = TypeVar("A", bound=Announced)


def due(waiting: Iterable[A], simulated_seconds: float) -> list[A]:
    """Of the episodes that wait, those that ended by then, in an order that owes nothing to their arrival."""
    return in_order(a for a in waiting if (a.event.simulated_ended_at or 0.0) <= simulated_seconds)


def in_order(episodes: Iterable[A]) -> list[A]:
    """Sorted by simulated end, robot, and the robot's own order.

    Identifiers come last: two runs that mean the same give their episodes other ones.
    """

    def key(announced: A) -> tuple[float, str, int, int, str]:
        event = announced.event
        first = event.sequences[0].first if event.sequences else -1
        return event.simulated_ended_at or 0.0, event.robot_id, event.boot_epoch, first, event.episode_id

    return sorted(episodes, key=key)
