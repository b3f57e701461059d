"""What is wrong with an event by itself, whatever else its robot sent: ids, times, numbers, layouts."""

from __future__ import annotations

import functools
import math
import uuid

from consumers.dead_letters import Reason
from schemas import frames
from schemas.events import EpisodeBoundary, EpisodeEnded, EpisodeStarted, FramesRecorded, Intervention, RobotEvent

MAX_ELEMENTS = 2**20
"""Elements of a vector: as float32 4 MiB, more than a record of robot-steps takes; Arrow ends at 2³¹."""

Problem = tuple[Reason, str]
"""Why a record cannot be used, for metrics and in words."""


def identity_problem(robot_id: str, episode_id: str, key: bytes | None) -> Problem | None:
    """Whether it cannot be told whose event it is."""
    if key != robot_id.encode():
        return Reason.FOREIGN_KEY, f"key {key!r} is not the robot {robot_id!r}"
    if not is_uuid7(episode_id):
        return Reason.BAD_ID, f"episode_id {episode_id!r} is not a UUIDv7"
    return None


def sequence_problem(sequence: int, name: str = "sequence") -> Problem | None:
    """Sequences begin at 0; what lies between two of them must be countable."""
    return None if sequence >= 0 else (Reason.BAD_ID, f"{name} is {sequence}, less than 0")


def content_problem(event: RobotEvent) -> Problem | None:
    """Times, ids and numbers that are none, and features that no step could be read with."""
    if not 1970 <= event.captured_at.year < 2200:
        return Reason.BAD_TIME, f"captured_at is {event.captured_at}, not between 1970 and 2200"
    if isinstance(event, Intervention) and not is_uuid7(event.intervention_id):
        return Reason.BAD_ID, f"intervention_id {event.intervention_id!r} is not a UUIDv7"
    body = event.body if isinstance(event, EpisodeBoundary) else None
    if isinstance(body, FramesRecorded):
        text = frames.problem(body)
        return (Reason.BAD_FEATURES, text) if text else None
    if isinstance(body, EpisodeEnded):
        return _end_problem(body)
    return _start_problem(body) if isinstance(body, EpisodeStarted) else None


def _end_problem(end: EpisodeEnded) -> Problem | None:
    if end.simulated_at is not None and not math.isfinite(end.simulated_at):
        return Reason.NOT_FINITE, f"simulated_at is {end.simulated_at}"
    return sequence_problem(end.first_sequence, "first_sequence")


def _start_problem(start: EpisodeStarted) -> Problem | None:
    if not (math.isfinite(start.fps) and start.fps > 0):
        return Reason.NOT_FINITE, f"fps is {start.fps}, not a finite rate above 0"
    names = [feature.name for feature in start.features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return Reason.BAD_FEATURES, f"the episode has more than one feature {twice[0]!r}"
    for feature in start.features:
        if feature.size > MAX_ELEMENTS and feature.dtype not in ("uint8", "uint16"):
            return Reason.BAD_FEATURES, f"{feature.name} has {feature.size} elements, more than {MAX_ELEMENTS}"
    text = next(filter(None, (_vector_problem(start, name) for name in ("state", "action"))), None)
    return (Reason.BAD_FEATURES, text) if text else None


def _vector_problem(start: EpisodeStarted, name: str) -> str | None:
    feature = next((feature for feature in start.features if feature.name == name), None)
    if feature is None:
        return f"the episode has no feature {name!r}"
    if feature.dtype != "float32" or not feature.shape or min(feature.shape) < 1:
        return f"{name} is {feature.dtype}{list(feature.shape)}, not a float32 vector"
    if feature.names and len(feature.names) != feature.size:
        return f"{name} has {feature.size} elements and {len(feature.names)} names"
    return None


@functools.lru_cache(maxsize=10_000)
def is_uuid7(text: str) -> bool:
    """Whether a text is a UUIDv7 in its canonical form."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return False
    return parsed.version == 7 and str(parsed) == text
