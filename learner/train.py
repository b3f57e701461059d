"""`sop learn`: a base from demonstrations, then one version after another from what the fleet experiences.

The loop of SOP (paper, Algorithm 1). `learner.line` says what each step does to Kafka and S3.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime

import structlog

from infra.clock import Clock, SystemClock
from infra.health import Health
from infra.settings import Settings
from learner.barrier import Barrier, due
from learner.errors import RankGone, RolledBack
from learner.gathering import Gathered
from learner.line import Line
from learner.patience import Stopped
from learner.ranks import follow
from learner.rerun import train_base
from learner.team import Team, assemble
from learner.unheeded import say_unknown_tasks
from schemas.events import Heartbeat
from schemas.topics import ROBOT_STATUS

_IDLE_SECONDS = 0.2
_BARRIER_SECONDS = 0.05
# Announcements that are read before earlier ones are admitted: some 50 MB, whatever the topic holds.
_MOST_WAITING = 5_000
# Between two looks at the stream: about 25 ms of training, so that an episode is admitted soon after it is seen.
_UPDATES_BETWEEN_LOOKS = 10

_log = structlog.get_logger(__name__)


def run(
    settings: Settings,
    stop: threading.Event,
    health: Health | None = None,
    clock: Clock | None = None,
    *,
    without_lost: bool = False,
) -> None:
    """Train and publish one policy line until `stop` is set.

    Under torchrun each rank calls this; those behind the first do what it says. `without_lost`: go on however many
    admitted episodes can no longer be read.

    Raises:
        CheckpointMissing: versions of the line were published, and nothing to go on from is left.
        VersionsLost: their announcements are gone.
        EpisodesLost: much of what was admitted cannot be read.
        ProducerFenced: another learner took the line over.
        RankGone: under torchrun, another rank ended.
        OffsetsExpired: episodes were deleted by retention before they were read.
    """
    health = health or Health()
    team = assemble(health.beat)
    if not team.leads:
        follow_first_rank(settings, team, stop)
        return
    try:
        _lead(settings, stop, health, clock or SystemClock(), team, without_lost=without_lost)
    finally:
        with contextlib.suppress(RankGone):
            team.tell(b'{"do": "end"}')


def follow_first_rank(settings: Settings, team: Team, stop: threading.Event) -> None:
    """Do what the first rank says until it is done, or gone."""
    _log.info("rank_follows", rank=team.rank, ranks=team.ranks)
    try:
        follow(settings, team, stop)
    except Stopped:
        _log.info("rank_stopped", rank=team.rank)


def _lead(
    settings: Settings, stop: threading.Event, health: Health, clock: Clock, team: Team, *, without_lost: bool
) -> None:
    while True:
        try:
            with Line(settings, stop, clock, health, team=team, without_lost=without_lost) as line:
                line.take_over()
                line.catch_up()
                if not line.started:
                    begin_line(line)
                say_unknown_tasks(line.settings, line.core.spec.tasks)
                if line.newest is None:
                    publish_base(line)
                if settings.learner.simulated_interval is None:
                    follow_fleet(line)
                else:
                    follow_simulated_fleet(line, settings.learner.simulated_interval)
        except Stopped:
            _log.info("learner_stopped")
            return
        except RolledBack as error:
            _log.warning("learner_starts_again", reason=str(error))


def begin_line(line: Line) -> None:
    """Wait for demonstrations, until there are enough of one kind."""
    gathered = Gathered(line.room)
    line.intake.demonstrations_only = True
    gather_demonstrations(line, gathered, line.settings.pretrain_episodes)
    while not line.start(gathered, lambda *_: line.pause(0.0)):
        gather_demonstrations(line, gathered, 1)
    line.intake.take_up_rest()


def publish_base(line: Line) -> None:
    """Train the first version from the demonstrations that the line began with."""
    settings = line.settings
    line.simulated_seconds = None if settings.simulated_interval is None else 0.0
    _log.info("base_training_begins", demonstrations=len(line.core.episodes), tasks=line.core.spec.tasks)
    train_base(line.core, settings, lambda: line.update(online=False))
    line.publish()


def gather_demonstrations(line: Line, gathered: Gathered, count: int) -> None:
    """Wait for `count` more demonstrations whose payloads are good; all that are there then are taken."""
    taken = 0
    _log.info("learner_waits", demonstrations=count)
    while taken < count:
        line.keep_on()
        line.intake.poll(_IDLE_SECONDS)
        if taken + len(line.intake.waiting) >= count:
            taken += gathered.take(line.intake, line.intake.waiting.values())


def follow_fleet(line: Line) -> None:
    """Train on what arrives, as it arrives, and publish every `publish_every` steps."""
    core, publish_every = line.core, line.settings.publish_every
    while True:
        idle = 0.0 if core.updates_allowed() else _IDLE_SECONDS
        if len(line.intake.waiting) < _MOST_WAITING:
            line.intake.poll(idle)
        else:
            line.pause(idle)
        line.admit(line.intake.ready())
        line.look_for_rollback()
        left = line.published_step + publish_every - core.learner_step
        for _ in range(min(core.updates_allowed(), left, _UPDATES_BETWEEN_LOOKS)):
            line.update(online=True)
        if core.learner_step >= line.published_step + publish_every:
            line.publish()


def follow_simulated_fleet(line: Line, interval: float) -> None:
    """Train at the boundaries of simulated time, where fleet and learner wait for each other."""
    core, settings = line.core, line.settings
    barrier = _barrier(line, interval)
    status = line.follow(ROBOT_STATUS, Heartbeat)
    while True:
        for event in line.intake.poll(_BARRIER_SECONDS):
            barrier.see(event)
        for item in status.poll(_BARRIER_SECONDS):
            if item.event.policy in {"", settings.policy}:
                barrier.hear(item.event, _age(line.clock.now(), item.appended_at))
        opening = barrier.decide()
        if opening is None:
            line.look_for_rollback()
            continue
        _log.info(
            "boundary_opens",
            simulated_seconds=opening.simulated_seconds,
            left=opening.left,
            missing=dict(opening.missing),
        )
        line.simulated_seconds = opening.simulated_seconds
        line.admit(due(line.intake.waiting.values(), opening.simulated_seconds))
        for _ in range(min(settings.publish_every, core.updates_allowed())):
            line.update(online=True)
        line.publish()


def _barrier(line: Line, interval: float) -> Barrier:
    settings = line.settings
    barrier = Barrier(
        interval=interval,
        robots=settings.simulated_robots,
        patience=settings.simulated_patience,
        clock=line.clock,
        boundary=round((line.simulated_seconds or 0.0) / interval) + 1,
    )
    for record in (*line.core.episodes.values(), *line.intake.records()):
        barrier.see(record)
    return barrier


def _age(now: datetime, appended_at: datetime) -> float:
    return (now - appended_at).total_seconds()
