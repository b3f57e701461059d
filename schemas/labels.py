"""What people say of an episode once it is over."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime

from schemas.base import Event, Frozen


class Verdict(StrEnum):
    """Success, as a label has it; UNKNOWN takes back what was believed."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class Label(Frozen):
    """Who says what of an episode, when and why. None: nothing is said of that."""

    label_id: str
    author: str
    reason: str
    labelled_at: AwareDatetime
    verdict: Verdict | None = None
    excluded: bool | None = None


class EpisodeLabelled(Event):
    """Somebody labelled an episode of the robot `robot_id`."""

    record: ClassVar[str] = "episode_labelled"
    episode_id: str
    robot_id: str
    label: Label
