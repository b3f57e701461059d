"""`sop backfill`: a new policy line from episodes of the past, with another algorithm or another threshold.

`learner.chosen` says which episodes. The line is its own; the live one, its topics' readers and its checkpoints
are not touched. Announcements are in memory, frames on disk (`learner.replay`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from infra.clock import SystemClock
from infra.health import Health
from infra.registry import Registry
from infra.settings import Settings
from learner.errors import LineExists, NothingChosen
from learner.gathering import Gathered
from learner.line import Line
from learner.patience import Patience
from learner.rerun import train_base
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized, PolicyVersion
from schemas.topics import POLICY_VERSIONS


class Listed:
    """A stream that holds what was chosen, once. Implements `learner.stream.Announcements`."""

    def __init__(self, chosen: Iterable[Received[EpisodeMaterialized]]) -> None:
        self._chosen = list(chosen)

    @property
    def positions(self) -> dict[int, int]:
        """None: a chosen set is not read on."""
        return {}

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        """Nothing to seek."""

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:  # noqa: ARG002 - never waits
        """All of it at the first call, nothing afterwards."""
        found, self._chosen = self._chosen, []
        return found


def backfill(
    settings: Settings,
    chosen: list[Received[EpisodeMaterialized]],
    stop: threading.Event,
    advance: Callable[[int], None] = lambda _steps: None,
    *,
    save_every: float = 30.0,
) -> PolicyVersion:
    """Train a new line's first version on these episodes; `settings.learner` says how, and its name.

    If it is interrupted, the same call goes on with the same episodes, which the journal has, from where it was at
    most `save_every` seconds earlier.

    Args:
        settings: `learner.pretrain_steps` updates are taken.
        chosen: what `learner.chosen.choose_episodes` found.
        stop: ends it.
        advance: called after each update with the number of all.
        save_every: seconds between two snapshots.

    Raises:
        LineExists: the line has versions: a backfill never adds to one.
        NothingChosen: there is nothing in these episodes to learn from.
        Stopped: a stop was asked for.
    """
    learner = settings.learner
    require_new(settings, Patience(stop))
    with Line(settings, stop, SystemClock(), Health(), announcements=Listed(chosen)) as line:
        line.take_over()
        line.catch_up()
        if not line.started:
            line.intake.poll(0.0)
            gathered = Gathered(line.room)
            gathered.take(line.intake, line.intake.waiting.values())
            if not line.start(gathered):
                raise NothingChosen(f"{len(gathered)} episodes, and none that {learner.algorithm} learns from")

        line.go_on_halfway()
        saved_at = line.clock.monotonic()

        def update() -> None:
            nonlocal saved_at
            line.update(online=False)
            advance(line.core.learner_step)
            if line.clock.monotonic() - saved_at >= save_every:
                line.halfway.save(line.core)
                saved_at = line.clock.monotonic()

        train_base(line.core, learner, update)
        line.publish()
        line.halfway.remove()
        if line.newest is None:
            raise RuntimeError("a line that has published has a newest version")
        return line.newest


def require_new(settings: Settings, patience: Patience) -> None:
    """Refuse a line that has versions.

    Raises:
        LineExists: it has.
    """
    registry = Registry(settings.registry)
    stream = EventStream(settings.kafka, registry, POLICY_VERSIONS, PolicyVersion, patience)
    try:
        policies = {item.event.policy for item in stream.read_to_end()}
    finally:
        stream.close()
    if settings.learner.policy in policies:
        raise LineExists(f"policy {settings.learner.policy} has versions already; choose another name (--policy)")
