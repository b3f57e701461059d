"""From journal and payloads to weights: the same decisions after the same updates give the same bits.

The learner goes through this file when it goes on after a kill, and `sop replay` when it trains a version again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from infra.settings import LearnerSettings
from learner.core import TrainingCore, base_spec
from learner.episodes import Episode, EpisodeRecord
from learner.errors import BadPayload, JournalMissing, PayloadGone
from learner.journal import Beginning, Entry, Segment
from learner.payloads import PayloadFetcher


def begin(settings: LearnerSettings, beginning: Beginning, demonstrations: Sequence[Episode]) -> TrainingCore:
    """A new policy with these demonstrations admitted, in their order; prepared, and not yet trained."""
    core = TrainingCore(settings, base_spec(settings, beginning.features, beginning.fps, demonstrations))
    core.prepare(demonstrations)
    for episode in demonstrations:
        core.admit(episode)
    return core


def train_base(core: TrainingCore, settings: LearnerSettings, update: Callable[[], object]) -> None:
    """The first version's training; `update` takes one offline step of `core`."""
    core.begin_phase(settings.pretrain_learning_rate, decay_over=settings.pretrain_steps)
    for _ in range(settings.pretrain_steps):
        update()
    core.begin_phase(settings.learning_rate)


def rerun(core: TrainingCore | None, segment: Segment, payloads: PayloadFetcher) -> TrainingCore:
    """Train one version again, from its parent's core; None for a line's first.

    Args:
        core: is changed; if it was made with other settings, another one is returned.
        segment: how the version came about.
        payloads: where the episodes come from.

    Raises:
        PayloadGone: an episode can no longer be read as it was announced.
        JournalMissing: the segment of a line's first version does not say what the line is for.
        Stopped: a stop was asked for.
    """
    settings = LearnerSettings.model_validate_json(segment.config)
    entries = list(segment.entries)
    episodes = _episodes(entries, payloads)
    if core is None:
        first = entries.pop(0) if entries else Entry(learner_step=0)
        if first.beginning is None:
            raise JournalMissing(f"version {segment.version}: the journal does not say what the line began with")
        core = begin(settings, first.beginning, [next(episodes) for _ in first.admitted])
        begun = core
        train_base(begun, settings, lambda: begun.update(online=False))
    elif core.settings != settings:
        core = with_settings(core, settings, payloads)
    for entry in entries:
        _update_until(core, entry.learner_step)
        apply(core, entry, [next(episodes) for _ in entry.admitted])
    _update_until(core, segment.learner_step)
    core.take_draws()  # they were told when it was published, and are none of the next version's
    return core


def apply(core: TrainingCore, entry: Entry, episodes: Sequence[Episode]) -> None:
    """Do what was decided; `episodes` are those that `entry` admits, in its order."""
    for episode_id in entry.forgotten:
        core.forget(episode_id)
    for episode in episodes:
        core.admit(episode)


def with_settings(core: TrainingCore, settings: LearnerSettings, payloads: PayloadFetcher) -> TrainingCore:
    """What a learner makes of a core that was started again with other settings.

    Raises:
        PayloadGone: an episode can no longer be read as it was announced.
    """
    restored = TrainingCore.restore(settings, *core.snapshot())
    for episode in _readable(list(restored.episodes.values()), payloads):
        restored.refill(episode)
    return restored


def _episodes(entries: Sequence[Entry], payloads: PayloadFetcher) -> Iterator[Episode]:
    return _readable([decision.record for entry in entries for decision in entry.admitted], payloads)


def _readable(records: Sequence[EpisodeRecord], payloads: PayloadFetcher) -> Iterator[Episode]:
    for record, episode in payloads.take_all(records):
        if isinstance(episode, BadPayload):
            raise PayloadGone(f"episode {record.episode_id} cannot be read any more: {episode}")
        yield episode


def _update_until(core: TrainingCore, learner_step: int) -> None:
    while core.learner_step < learner_step:
        core.update(online=True)
