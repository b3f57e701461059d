"""From journal and payloads to weights: the same decisions after the same updates give the same bits.

The learner goes through this file when it goes on after a kill, and `sop replay` when it trains a version again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from infra.settings import LearnerSettings
from learner import line_spec
from learner.algorithms import READINGS
from learner.algorithms.base import Fitting, unheard
from learner.core import TrainingCore
from learner.episodes import Episode, EpisodeRecord
from learner.errors import BadPayload, JournalMissing, PayloadGone
from learner.frames import Room
from learner.journal import Beginning, Entry, Segment, settings_of
from learner.kept import keep_all
from learner.payloads import PayloadFetcher
from learner.team import ALONE, Team


def readings(settings: LearnerSettings) -> int:
    """How often `begin` goes through the demonstrations."""
    return line_spec.readings(settings) + READINGS.get(settings.algorithm, 0) + 1


def _go_on() -> None:
    """Nobody can ask for a stop."""


def begin(
    settings: LearnerSettings,
    beginning: Beginning,
    demonstrations: Sequence[Episode],
    room: Room | None = None,
    team: Team = ALONE,
    *,
    fitting: Fitting = unheard,
) -> TrainingCore:
    """A new policy with these demonstrations admitted, in their order; prepared, and not yet trained.

    They are gone through several times (`readings`), one after the other; `room` is where the frames will lie;
    `fitting` hears of the algorithm's preparation.
    """
    spec = line_spec.base_spec(settings, beginning.features, beginning.fps, demonstrations)
    core = TrainingCore(settings, spec, room=room, team=team)
    core.prepare(demonstrations, fitting)
    core.tell()
    for episode in demonstrations:
        core.admit(episode)
    core.online_steps = 0  # the base's updates are free; those to come are for what the fleet is yet to bring
    return core


def train_base(core: TrainingCore, settings: LearnerSettings, update: Callable[[], object]) -> None:
    """The first version's training, or the rest of it; `update` takes one offline step of `core`."""
    if core.learner_step == 0:
        core.begin_phase(settings.pretrain_learning_rate, decay_over=settings.pretrain_steps)
    while core.learner_step < settings.pretrain_steps:
        update()
    core.begin_phase(settings.learning_rate)


def rerun(
    core: TrainingCore | None,
    segment: Segment,
    payloads: PayloadFetcher,
    room: Room | None = None,
    check: Callable[[], None] = _go_on,
) -> TrainingCore:
    """Train one version again, from its parent's core; None for a line's first.

    Args:
        core: is changed; if it was made with other settings, another one is returned.
        segment: how the version came about.
        payloads: where the episodes come from.
        room: where the frames of a line's first version lie.
        check: is called before each update, the value function's too; what it raises ends this.

    Raises:
        PayloadGone: an episode can no longer be read as it was announced.
        JournalMissing: the segment of a line's first version does not say what the line is for.
        InvalidArtifact: its settings are those of other software.
        Stopped: a stop was asked for.
    """
    settings = settings_of(segment.config)
    payloads.cameras = settings.cameras if core is None else core.spec.cameras
    entries = list(segment.entries)
    episodes = _episodes(segment.entries, payloads)
    if core is None:
        first = entries.pop(0) if entries else Entry(learner_step=0)
        if first.beginning is None:
            raise JournalMissing(f"version {segment.version}: the journal does not say what the line began with")
        demonstrations = keep_all(itertools.islice(episodes, len(first.admitted)), room or Room())
        team = Team(segment.ranks)
        core = begin(settings, first.beginning, demonstrations, room, team, fitting=lambda *_: check())
        begun = core

        def update() -> None:
            check()
            begun.update(online=False)

        train_base(begun, settings, update)
    elif core.settings != settings or core.team.ranks != segment.ranks:
        if not core.team.alone and core.team.ranks != segment.ranks:
            raise JournalMissing(
                f"version {segment.version} was trained by {segment.ranks} ranks, here are {core.team.ranks}: "
                "start as many, or one, which can do the work of all"
            )
        core = with_settings(core, settings, payloads, Team(segment.ranks) if core.team.alone else core.team)
    for entry in entries:
        _update_until(core, entry.learner_step, check)
        apply(core, entry, itertools.islice(episodes, len(entry.admitted)))
    _update_until(core, segment.learner_step, check)
    core.take_draws()  # they were told when it was published, and are none of the next version's
    return core


def apply(core: TrainingCore, entry: Entry, episodes: Iterable[Episode]) -> None:
    """Do what was decided; `episodes` are those that `entry` admits, in its order."""
    for episode_id in entry.forgotten:
        core.forget(episode_id)
    for episode in episodes:
        core.admit(episode)


def with_settings(
    core: TrainingCore, settings: LearnerSettings, payloads: PayloadFetcher, team: Team | None = None
) -> TrainingCore:
    """What a learner makes of a core that was started again with other settings, or with another team.

    Raises:
        PayloadGone: an episode can no longer be read as it was announced.
    """
    restored = TrainingCore.restore(settings, *core.snapshot(), room=core.room, team=team or core.team)
    core.close()
    try:
        for episode in _readable(restored.episodes.to_refill(), payloads):
            restored.refill(episode)
    except PayloadGone:
        restored.close()
        raise
    return restored


def _episodes(entries: Sequence[Entry], payloads: PayloadFetcher) -> Iterator[Episode]:
    return _readable((decision.record for entry in entries for decision in entry.admitted), payloads)


def _readable(records: Iterable[EpisodeRecord], payloads: PayloadFetcher) -> Iterator[Episode]:
    for record, episode in payloads.take_all(records):
        if isinstance(episode, BadPayload):
            raise PayloadGone(f"episode {record.episode_id} cannot be read any more: {episode}")
        yield episode


def _update_until(core: TrainingCore, learner_step: int, check: Callable[[], None]) -> None:
    while core.learner_step < learner_step:
        check()
        core.update(online=True)
