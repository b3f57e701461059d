"""Going on where a line stands: the newest checkpoint, and the journal up to the newest version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from infra.object_store import sha256_hex
from infra.settings import LearnerSettings
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.episodes import EpisodeRecord
from learner.errors import (
    BadPayload,
    CheckpointMissing,
    EpisodesLost,
    InvalidArtifact,
    JournalMissing,
    OtherAlgorithm,
    PayloadGone,
)
from learner.frames import Room
from learner.journal import Entry, Journal, Segment, Trail, path_to
from learner.payloads import PayloadFetcher
from learner.policies.base import PolicySpec
from learner.rereading import about
from learner.rerun import rerun, with_settings
from learner.set_aside import SetAside
from learner.team import ALONE, Team
from learner.unheeded import say_what_is_fixed
from schemas.events import PolicyVersion, Position

_FEW_LOST, _FEW_LOST_SHARE = 10, 0.03
"""So many episodes, or this share of all, may be lost at once without a word from whoever runs the learner."""

_log = structlog.get_logger(__name__)


@dataclass
class Resumed:
    """A core as it was when `at` was published; `set_aside` until then; `lost`: admitted, and gone.

    read: episodes whose payload was asked for.
    begun: where to read on from what it began with, before versions were trained again.
    """

    core: TrainingCore
    at: PolicyVersion
    set_aside: SetAside = field(default_factory=SetAside)
    lost: list[EpisodeRecord] = field(default_factory=list)
    read: int = 0
    begun: tuple[Position, ...] = ()

    def positions(self, *, all_are_counted: bool) -> dict[int, int]:
        """Next offset to read by partition of training-episodes.

        No journal says which announcements were refused before their payload was asked for. Who counts the
        episodes of each robot reads them again.
        """
        places = self.begun if all_are_counted else self.at.offsets
        return {position.partition: position.offset for position in places}

    def tail(self, journal: Journal) -> list[Entry]:
        """What the last learner decided after `at`; first of all what is lost is forgotten, and set aside."""
        entries = list(journal.readable_tail(self.at.version))
        if not about(self.core, entries):  # earlier software filed it under the newest version's number
            _log.error("journal_passed_over", version=self.at.version, reason="it is about another version")
            entries = []
        if self.lost:
            forgotten = tuple(record.episode_id for record in self.lost)
            entries.insert(0, Entry(learner_step=self.core.learner_step, forgotten=forgotten))
        for record in self.lost:
            self.set_aside.put(record)
        return entries


@dataclass(frozen=True, slots=True)
class Way:
    """What a line is gone along with.

    past: announcements of the version to go on from and its ancestors, by number. room: where frames will lie.
    check: is called before each update; what it raises ends this. without_lost: go on however much is lost.
    """

    settings: LearnerSettings
    past: dict[int, PolicyVersion]
    journal: Journal
    payloads: PayloadFetcher
    room: Room | None = None
    team: Team = ALONE
    check: Callable[[], None] = lambda: None
    without_lost: bool = False


def resume(way: Way, checkpoint: Checkpoint) -> Resumed:
    """The core of the newest version, or of the checkpoint's if the way from there to the newest cannot be gone.

    Raises:
        OtherAlgorithm: the line was trained with another algorithm than the settings name.
        EpisodesLost: much of what was admitted cannot be read, and `way` does not say to go on without.
        Stopped: a stop was asked for.
    """
    _require_same_algorithm(way.settings, checkpoint.announcement)
    say_what_is_fixed(way.settings, PolicySpec.model_validate(checkpoint.core["spec"]))
    at, newest = checkpoint.announcement.version, max(way.past)
    if at == newest:
        return _restore(way, checkpoint)
    try:
        return _go_on(way, checkpoint, path_to(newest, way.past, way.journal, after=at))
    except (JournalMissing, PayloadGone, InvalidArtifact) as error:
        _log.error("going_on_from_an_older_version", version=at, reason=str(error))
        return _restore(way, checkpoint)


def _go_on(way: Way, checkpoint: Checkpoint, path: Trail) -> Resumed:
    """Train the versions of this path again, from the checkpoint.

    What other ranks did than are here, this process does alone, as `from_the_beginning` has it.
    """
    apart = not way.team.alone and any(segment.ranks != way.team.ranks for segment in path)
    with way.payloads.taken_whole(apart):
        # What follows was trained with the settings of then. Today's, if they are others, come last: what a
        # smaller buffer or another sampler lets go is needed on the way.
        team = ALONE if apart else way.team
        resumed = restore(checkpoint.settings, checkpoint, way.payloads, way.room, team)
        try:
            settle(resumed, next(iter(path)))
            _require_few(way, resumed, resumed.lost)
            if resumed.lost:
                raise PayloadGone(f"of version {resumed.at.version}: {resumed.lost[0].episode_id}")
            for segment in path:
                _train_again(way, segment, resumed)
        except (JournalMissing, PayloadGone, InvalidArtifact):
            resumed.core.close()
            raise
    if resumed.core.settings != way.settings or resumed.core.team != way.team:
        resumed.core = with_settings(resumed.core, way.settings, way.payloads, way.team)
    return resumed


def from_the_beginning(way: Way, missing: CheckpointMissing) -> Resumed:
    """The core of the newest version where no checkpoint of it or an ancestor is left: trained from the journal.

    As `sop replay` does it: this process alone does the work of all ranks, whatever the team.

    Raises:
        OtherAlgorithm: the line was trained with another algorithm than the settings name.
        CheckpointMissing: that way cannot be gone either.
        Stopped: a stop was asked for.
    """
    newest = way.past[max(way.past)]
    _require_same_algorithm(way.settings, newest)
    _log.warning(
        "training_again_from_the_beginning",
        version=newest.version,
        updates=newest.learner_step,
        reason=str(missing),
    )
    resumed: Resumed | None = None
    try:
        with way.payloads.taken_whole():
            for segment in path_to(newest.version, way.past, way.journal):
                resumed = _train_again(way, segment, resumed)
        if resumed is None:
            raise missing
        resumed.core = with_settings(resumed.core, way.settings, way.payloads, way.team)
    except (JournalMissing, PayloadGone, InvalidArtifact) as error:
        raise CheckpointMissing(f"{missing}; nor can it be trained again from the journal: {error}") from error
    return resumed


def _train_again(way: Way, segment: Segment, resumed: Resumed | None) -> Resumed:
    """The next version, or the first: its hash must be the one that was announced."""
    core = rerun(resumed.core if resumed is not None else None, segment, way.payloads, way.room, way.check)
    if resumed is None:
        resumed = Resumed(core, way.past[segment.version])
    resumed.core = core
    digest = sha256_hex(core.artifact())
    if digest != segment.sha256:
        raise JournalMissing(f"version {segment.version} comes out as {digest}: is this another machine?")
    resumed.at = way.past[segment.version]
    for entry in segment.entries:
        for decision in entry.set_aside:
            resumed.set_aside.put(decision.record)
        for decision in entry.admitted:
            resumed.set_aside.discard(decision.record.episode_id)
    _log.info("version_trained_again", version=segment.version, sha256=digest)
    return resumed


def _restore(way: Way, checkpoint: Checkpoint) -> Resumed:
    resumed = restore(way.settings, checkpoint, way.payloads, way.room, way.team)
    _require_few(way, resumed, _unforgotten(resumed, way.journal.readable_tail(resumed.at.version)))
    return resumed


def settle(resumed: Resumed, following: Segment) -> None:
    """Whatever is lost, and was forgotten before anything else on the way to the next version, is lost no more.

    It is set aside, and the way leads to the same bits without it. A newer revision may be admitted on that way.
    """
    at_once = [entry for entry in following.entries if entry.learner_step == resumed.core.learner_step]
    lost = _unforgotten(resumed, at_once)
    for record in resumed.lost:
        if record not in lost:
            resumed.set_aside.put(record)
    resumed.lost = lost


def _unforgotten(resumed: Resumed, entries: Iterable[Entry]) -> list[EpisodeRecord]:
    """What is lost, but for what the last learner forgot for that."""
    forgotten = {episode_id for entry in entries for episode_id in entry.forgotten}
    return [record for record in resumed.lost if record.episode_id not in forgotten]


def _require_few(way: Way, resumed: Resumed, lost: Sequence[EpisodeRecord]) -> None:
    """A payload or two may be gone; if many are, it is the bucket that is gone, or another one."""
    if way.without_lost or len(lost) <= max(_FEW_LOST, _FEW_LOST_SHARE * resumed.read):
        return
    resumed.core.close()
    raise EpisodesLost(
        f"{len(lost)} of the {resumed.read} episodes that version {resumed.at.version} of {way.settings.policy} "
        f"is trained on cannot be read, {lost[0].payload_uri} is the first: restore the bucket, and start again. "
        "To forget them for good, start once with `sop learn --without-lost`"
    )


def _require_same_algorithm(settings: LearnerSettings, version: PolicyVersion) -> None:
    if version.algorithm != settings.algorithm:
        raise OtherAlgorithm(
            f"the line {settings.policy!r} is trained with {version.algorithm}, not with {settings.algorithm}: "
            f"set SOP_LEARNER__ALGORITHM back, or train a new line on the same episodes: "
            f"sop backfill --policy NEW --algorithm {settings.algorithm}"
        )


def restore(
    settings: LearnerSettings,
    checkpoint: Checkpoint,
    payloads: PayloadFetcher,
    room: Room | None = None,
    team: Team = ALONE,
) -> Resumed:
    """The core of a checkpoint, its buffer filled again; `room` is where the frames will lie."""
    core = TrainingCore.restore(settings, checkpoint.core, checkpoint.tensors, room=room, team=team)
    payloads.cameras = core.spec.cameras
    at = checkpoint.announcement
    resumed = Resumed(core, at, checkpoint.set_aside.copy(), begun=at.offsets)
    for record, episode in payloads.take_all(core.episodes.to_refill()):
        resumed.read += 1
        if isinstance(episode, BadPayload):
            _log.error("episode_lost", episode_id=record.episode_id, reason=str(episode))
            core.forget(record.episode_id)
            resumed.lost.append(record)
        else:
            core.refill(episode)
    return resumed
