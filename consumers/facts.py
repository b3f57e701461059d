"""Everything about an episode that is not a step: what a payload's own metadata holds.

An object store alone is enough to rebuild the announcements from these.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from pydantic import BaseModel, ConfigDict

from consumers import footage
from consumers.episode import OpenEpisode
from consumers.labelled import is_excluded, success_of
from consumers.ranges import RangeSet
from consumers.steps import Steps
from schemas.events import (
    ClosedBy,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeMaterialized,
    EpisodeSource,
    Feature,
    Intervention,
    InterventionPhase,
    InterventionSpan,
    Label,
    OffsetRange,
    Range,
)


class EpisodeFacts(BaseModel):
    """An episode's metadata; field meanings as in EpisodeMaterialized, times aware UTC.

    `events` are the robot's own events that are no steps, as they came; everything else is derived from them and
    from the rows, for readers who only want to look. Without an EpisodeEnded among them a timeout made the end up.
    """

    # Without numbers that JSON does not have: it would be written, and could not be read back.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )

    episode_id: str
    revision: int
    robot_id: str
    boot_epoch: int
    task: str
    instruction: str
    embodiment: str
    source: EpisodeSource
    policy: str
    features: tuple[Feature, ...]
    fps: float
    end: EpisodeEnd
    success: bool | None
    closed_by: ClosedBy
    events: tuple[EpisodeBoundary | Intervention, ...]
    step_count: int
    human_step_count: int
    reward_sum: float
    sequences: tuple[Range, ...]
    rejected: tuple[Range, ...]
    missing_count: int
    source_offsets: tuple[OffsetRange, ...]
    policy_versions: tuple[int, ...]
    human_ranges: tuple[Range, ...]
    interventions: tuple[InterventionSpan, ...]
    started_at: datetime
    ended_at: datetime
    appended_at: datetime
    simulated_ended_at: float | None
    recorded_success: bool | None = None
    excluded: bool = False
    labels: tuple[Label, ...] = ()
    frame_count: int = 0
    frames_dropped: int = 0
    frame_objects: int = 0

    @property
    def boundaries(self) -> list[EpisodeBoundary]:
        """Its events but interventions."""
        return [event for event in self.events if isinstance(event, EpisodeBoundary)]

    def announcement(self, *, uri: str, sha256: str, size: int, at: datetime) -> EpisodeMaterialized:
        """The event that tells the training stream about a stored payload of `size` bytes."""
        own = {name: getattr(self, name) for name in EpisodeFacts.model_fields}
        shared = {name: value for name, value in own.items() if name in EpisodeMaterialized.model_fields}
        return EpisodeMaterialized(
            **shared, payload_uri=uri, payload_sha256=sha256, payload_bytes=size, materialized_at=at
        )


def facts_of(episode: OpenEpisode, steps: Steps, closed_by: ClosedBy, revision: int) -> EpisodeFacts:
    """Facts of an episode whose start was seen.

    Args:
        episode: its events.
        steps: its rows in the payload's order.
        closed_by: why it is sealed.
        revision: from 1.

    Raises:
        ValueError: the start was not seen.
    """
    start, end = episode.start, episode.end
    if start is None or episode.started is None:
        raise ValueError(f"episode {episode.episode_id} has no start")
    last_event = episode.ended or episode.started
    ended_at = last_event.captured_at
    if episode.ended is None and len(steps):
        ended_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(steps.captured_at[-1]))
    recorded = end.success if end else None
    accounted = episode.accounted()
    first = episode.started.sequence
    last = episode.ended.sequence if episode.ended else (accounted.max or first)
    seen = sorted(episode.footage, key=lambda event: event.sequence)
    frames, objects = footage.counts(start.features, seen, steps.index)
    return EpisodeFacts(
        episode_id=episode.episode_id,
        revision=revision,
        robot_id=episode.robot_id,
        boot_epoch=episode.boot_epoch,
        task=start.task,
        instruction=start.instruction,
        embodiment=start.embodiment,
        source=start.source,
        policy=start.policy,
        features=start.features,
        fps=start.fps,
        end=end.end if end else EpisodeEnd.TRUNCATED,
        success=success_of(episode.labels, recorded),
        closed_by=closed_by,
        events=(*filter(None, (episode.started, episode.ended)), *episode.interventions, *seen),
        sequences=episode.seen.as_events(),
        rejected=episode.rejected.as_events(),
        missing_count=last - first + 1 - accounted.count(first, last),
        source_offsets=episode.source_offsets(),
        interventions=spans(episode.interventions),
        started_at=episode.started.captured_at,
        ended_at=ended_at,
        appended_at=datetime.fromtimestamp(episode.appended_ms / 1000, UTC),
        simulated_ended_at=end.simulated_at if end else None,
        recorded_success=recorded,
        excluded=is_excluded(episode.labels),
        labels=episode.labels,
        frame_count=frames,
        frames_dropped=end.frames_dropped if end else 0,
        frame_objects=objects,
        **step_facts(steps),
    )


def step_facts(steps: Steps) -> dict[str, object]:
    """Facts that the rows alone decide."""
    human = RangeSet()
    if count := int(np.count_nonzero(steps.human)):
        for index in steps.index[steps.human].tolist():
            human.add(index)
    return {
        "step_count": len(steps),
        "human_step_count": count,
        "reward_sum": float(steps.reward.sum(dtype=np.float64)),
        "policy_versions": tuple(v for v in np.unique(steps.policy_version).tolist() if v > 0),
        "human_ranges": human.as_events(),
    }


def spans(events: list[Intervention]) -> tuple[InterventionSpan, ...]:
    """Interventions with both edges joined, in order of their beginning.

    An end without its beginning counts from what the end itself says.
    """
    begun = {e.intervention_id: e for e in events if e.phase is InterventionPhase.BEGIN}
    ended = {e.intervention_id: e for e in events if e.phase is InterventionPhase.END}
    found = []
    for intervention_id in begun.keys() | ended.keys():
        first = begun.get(intervention_id) or ended[intervention_id]
        last = ended.get(intervention_id)
        found.append(
            InterventionSpan(
                intervention_id=intervention_id,
                operator=first.operator,
                reason=first.reason,
                first_step=first.first_step,
                last_step=last.last_step if last else None,
                began_at=first.captured_at,
                ended_at=last.captured_at if last else None,
            )
        )
    return tuple(sorted(found, key=lambda span: (span.first_step, span.intervention_id)))
