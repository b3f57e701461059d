"""Where the events of a boot have come to: the next sequence, and what is open."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from schemas.events import (
    EpisodeBoundary,
    EpisodeEnded,
    EpisodeStarted,
    Event,
    Intervention,
    InterventionPhase,
    RobotEvent,
    Step,
)


@dataclass
class OpenEpisode:
    """An episode that has begun and not ended; `intervention` is its open one's BEGIN."""

    episode_id: str
    traceparent: str
    first_sequence: int
    step_count: int = 0
    intervention_count: int = 0
    intervention: dict[str, Any] | None = None


@dataclass
class Tail:
    """Where a boot's events have come to."""

    next_sequence: int = 0
    episode: OpenEpisode | None = None

    @classmethod
    def from_json(cls, text: str) -> Tail:
        """As `to_json` wrote it."""
        fields = json.loads(text)
        episode = fields["episode"]
        return cls(fields["next_sequence"], None if episode is None else OpenEpisode(**episode))

    def to_json(self) -> str:
        """As text, for the first event of the next file."""
        return json.dumps(asdict(self))

    def note(self, event: Event, traceparent: bytes) -> None:
        """An event was recorded."""
        if not isinstance(event, RobotEvent):
            return
        self.next_sequence = event.sequence + 1
        episode = self.episode
        if isinstance(event, Step):
            if episode is not None:
                episode.step_count = event.index + 1
        elif isinstance(event, Intervention):
            if episode is not None:
                self._note_edge(episode, event)
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeStarted):
            self.episode = OpenEpisode(event.episode_id, traceparent.decode(), event.sequence)
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeEnded):
            self.episode = None

    def note_steps(self, count: int) -> None:
        """So many more steps were recorded."""
        self.next_sequence += count
        if self.episode is not None:
            self.episode.step_count += count

    def _note_edge(self, episode: OpenEpisode, event: Intervention) -> None:
        if event.phase is InterventionPhase.BEGIN:
            episode.intervention_count += 1
            episode.intervention = {
                "intervention_id": event.intervention_id,
                "operator": event.operator,
                "reason": event.reason,
                "first_step": event.first_step,
            }
        else:
            episode.intervention = None
