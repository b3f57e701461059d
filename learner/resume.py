"""Going on where a line stands: the newest checkpoint, and the journal up to the newest version."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from infra.object_store import sha256_hex
from infra.settings import LearnerSettings
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.episodes import EpisodeRecord
from learner.errors import BadPayload, InvalidArtifact, JournalMissing, OtherAlgorithm, PayloadGone
from learner.frames import Room
from learner.journal import Journal, path_to
from learner.payloads import PayloadFetcher
from learner.rerun import rerun, with_settings
from learner.team import ALONE, Team
from schemas.events import PolicyVersion

_log = structlog.get_logger(__name__)


@dataclass
class Resumed:
    """A core as it was when `at` was published; `set_aside` until then; `lost`: admitted, and gone."""

    core: TrainingCore
    at: PolicyVersion
    set_aside: list[EpisodeRecord] = field(default_factory=list)
    lost: list[EpisodeRecord] = field(default_factory=list)


def resume(
    settings: LearnerSettings,
    checkpoint: Checkpoint,
    published: dict[int, PolicyVersion],
    journal: Journal,
    payloads: PayloadFetcher,
    *,
    room: Room | None = None,
    team: Team = ALONE,
) -> Resumed:
    """The core of the newest version, or of the checkpoint's if the way from there to the newest cannot be gone.

    Raises:
        OtherAlgorithm: the line was trained with another algorithm than the settings name.
        Stopped: a stop was asked for.
    """
    if (trained_with := checkpoint.announcement.algorithm) != settings.algorithm:
        raise OtherAlgorithm(
            f"the line {settings.policy!r} is trained with {trained_with}, not with {settings.algorithm}: set "
            f"SOP_LEARNER__ALGORITHM back, or train a new line on the same episodes: "
            f"sop backfill --policy NEW --algorithm {settings.algorithm}"
        )
    resumed = restore(settings, checkpoint, payloads, room, team)
    newest = published[max(published)]
    if newest.version == resumed.at.version or resumed.lost:
        return resumed
    try:
        for segment in path_to(newest.version, published, journal, after=resumed.at.version):
            resumed.core = rerun(resumed.core, segment, payloads)
            digest = sha256_hex(resumed.core.artifact())
            if digest != segment.sha256:
                raise JournalMissing(f"version {segment.version} comes out as {digest}: is this another machine?")
            resumed.at = published[segment.version]
            resumed.set_aside += [d.record for entry in segment.entries for d in entry.set_aside]
            _log.info("version_trained_again", version=segment.version, sha256=digest)
    except (JournalMissing, PayloadGone, InvalidArtifact) as error:
        _log.error("going_on_from_an_older_version", version=checkpoint.announcement.version, reason=str(error))
        resumed.core.close()
        return restore(settings, checkpoint, payloads, room, team)
    if resumed.core.settings != settings or resumed.core.team != team:
        resumed.core = with_settings(resumed.core, settings, payloads, team)
    return resumed


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
    resumed = Resumed(core, checkpoint.announcement, list(checkpoint.set_aside))
    for record, episode in payloads.take_all(core.episodes.held()):
        if isinstance(episode, BadPayload):
            _log.error("episode_lost", episode_id=record.episode_id, reason=str(episode))
            core.forget(record.episode_id)
            resumed.lost.append(record)
        else:
            core.refill(episode)
    return resumed
