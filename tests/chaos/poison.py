"""Records that nobody can use. Each kind knows how it gets into an episode and what must become of it.

Two families: bytes that say nothing (they belong to no episode, and have no sequence), and well-formed events that
break a rule (if their sequence can be told, it is the episode's, and the episode lists it as rejected).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.chaos.robot import DEAD, EITHER, LISTED, STATE, Event, Robot

RECORD_LIMIT = 1_000_000
FULL_SHARE = 0.5
"""Of the episodes that could be, those that get too many interventions: five records of nearly a megabyte each."""
TIMES = (-1, -86_400_000_000, 7_258_118_400_000_000, 200_000_000_000_000_000)
"""Microseconds: before 1970, and from 2200 on."""
FLAWS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"dtype": "float64"},
    {"shape": []},
    {"shape": [0]},
    {"names": ["only one"]},
)
"""What is wrong with a feature; None: it is not there."""


SPOILERS: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: None,
    "nothing": lambda _: b"",
    "short": lambda value: value[:3],
    "magic": lambda value: b"\x07" + value[1:],
    "unknown-schema": lambda value: b"\x00" + (9_999_999).to_bytes(4, "big") + value[5:],
    "cut": lambda value: value[: len(value) // 2],
    "longer": lambda value: value + b"\x00\x01",
    "noise": lambda value: value[:5] + bytes((byte * 7 + 13) % 256 for byte in value[5:]),
    "other-schema": lambda value: value,  # the wire knows the other record's number
    "huge": lambda value: b"\x07" + value * (RECORD_LIMIT // len(value) - 1),
}
"""What is done to the bytes of a good record."""


@dataclass(frozen=True)
class Poison:
    """One kind of poison."""

    name: str
    put: Callable[[Poison, list[Event], Robot], bool]

    def into(self, episode: list[Event], robot: Robot) -> bool:
        """Put one into an episode; whether it could be."""
        return self.put(self, episode, robot)


def _bytes(poison: Poison, episode: list[Event], robot: Robot) -> bool:
    """A copy of some record with spoiled bytes, beside the good one."""
    at = _some(episode, robot)
    found = {"unknown-schema": "unknown_schema", "other-schema": "unknown_schema"}.get(poison.name, "undecodable")
    episode.insert(at + 1, _beside(episode[at], {found, "undecodable"}, spoil=poison.name))
    return True


def _foreign_key(_: Poison, episode: list[Event], robot: Robot) -> bool:
    at = _some(episode, robot)
    stray = _beside(episode[at], {"foreign_key"})
    stray.key = robot.chance.choice([None, b"somebody-else", robot.line.robot_id.encode() + b" "])
    episode.insert(at + 1, stray)
    return True


def _bad_id(_: Poison, episode: list[Event], robot: Robot) -> bool:
    at = _some(episode, robot)
    stray = _beside(episode[at], {"bad_id"})
    stray.datum["episode_id"] = robot.chance.choice(["", "x", "9f0c2f0e-3b1f-4c58-9d6f-0b8c5f6f7a11", "ß" * 9])
    episode.insert(at + 1, stray)
    return True


def _foreign_boot(_: Poison, episode: list[Event], _robot: Robot) -> bool:
    """A step that claims the episode for another boot; behind a good step, which tells whose episode it is."""
    at = next((i for i, event in enumerate(episode) if _good_step(event)), None)
    if at is None:
        return False
    stray = _beside(episode[at], {"foreign_episode"})
    stray.datum["boot_epoch"] -= 1_000_000
    episode.insert(at + 1, stray)
    return True


def _conflict(_: Poison, episode: list[Event], robot: Robot) -> bool:
    """The same sequence with other content. Once its episode is closed, such a record counts as a repetition."""
    steps = [i for i, event in enumerate(episode) if _good_step(event)]
    if len(steps) < 3 or any(event.fate == DEAD and event.counted for event in episode):
        return False
    at = robot.chance.choice(steps[:-1])
    stray = _beside(episode[at], {"conflict"})
    stray.datum["reward"] += 1.0
    stray.fate = EITHER
    episode.insert(at + 1, stray)
    return True


def _number(field: str, make: Callable[[Robot], Any], reason: str) -> Callable[[Poison, list[Event], Robot], bool]:
    def put(_: Poison, episode: list[Event], robot: Robot) -> bool:
        """A step of the episode whose numbers are wrong: its sequence is the episode's, and rejected."""
        steps = [event for event in episode if _good_step(event)]
        if not steps or any(event.fate == EITHER for event in episode):
            return False
        chosen = robot.chance.choice(steps)
        chosen.datum[field] = make(robot)
        chosen.fate, chosen.reasons = DEAD, frozenset({reason, "never_started"})
        return True

    return put


def _second_start(_: Poison, episode: list[Event], _robot: Robot) -> bool:
    """A second start, in place of some step: its sequence is the episode's, and rejected."""
    steps = [i for i, event in enumerate(episode) if _good_step(event)]
    if len(steps) < 2 or any(event.fate == EITHER for event in episode):
        return False
    at = steps[-1]
    old = episode[at]
    body = copy.deepcopy(episode[0].datum["body"])
    datum = {name: old.datum[name] for name in _COMMON} | {"body": body}
    episode[at] = Event("robot-episodes", datum, old.key, old.line, DEAD, frozenset({"conflict"}))
    return True


def _bad_features(_: Poison, episode: list[Event], robot: Robot) -> bool:
    """A start that no step could be read with: the whole episode ends on dead-letters."""
    if not _untouched(episode) or len(episode) > 30:
        return False
    features = episode[0].datum["body"][1]["features"]
    at, flaw = robot.chance.randrange(2), robot.chance.choice(FLAWS)
    if flaw is None:
        features.pop(at)
    else:
        features[at] |= flaw
    for event in episode:
        event.fate, event.may_repeat = DEAD, False
    episode[0].reasons = frozenset({"bad_features"})
    episode[0].counted = False
    return True


def _never_started(_: Poison, episode: list[Event], _robot: Robot) -> bool:
    """The start never comes."""
    if not _untouched(episode) or not 2 < len(episode) < 30:
        return False
    del episode[0]
    for event in episode:
        event.fate, event.may_repeat = DEAD, False
    return True


def _bad_time(_: Poison, episode: list[Event], robot: Robot) -> bool:
    """Any event of the episode but its boundaries, from a time that cannot be kept."""
    return _reject(
        episode, robot, "bad_time", lambda event: event.datum.update(captured_at=robot.chance.choice(TIMES))
    )


def _bad_intervention(_: Poison, episode: list[Event], robot: Robot) -> bool:
    ids = ["", "x", "9f0c2f0e-3b1f-4c58-9d6f-0b8c5f6f7a11"]
    return _reject(
        episode,
        robot,
        "bad_id",
        lambda event: event.datum.update(intervention_id=robot.chance.choice(ids)),
        lambda event: event.topic == "robot-interventions",
    )


def _bad_frames(_: Poison, episode: list[Event], robot: Robot) -> bool:
    """Frames that nobody could find."""

    def spoil(event: Event) -> None:
        segment = event.datum["body"][1]["segments"][0]
        flaws: list[dict[str, Any]] = [
            {"sha256": "nothing"},
            {"uri": None, "data": None},
            {"uri": "s3://sop/x", "data": b"both"},
            {"uri": None, "data": b"\0" * 66_000},
            {"steps": [{"first": 5, "last": 4}]},
            {"steps": [{"first": 3, "last": 4}, {"first": 4, "last": 5}]},
        ]
        segment |= robot.chance.choice(flaws)

    return _reject(episode, robot, "bad_features", spoil, lambda event: _body(event) == "sop.FramesRecorded")


def _episode_full(_: Poison, episode: list[Event], robot: Robot) -> bool:
    """More interventions than an episode takes: the last one is rejected. Each has nearly a megabyte."""
    if not _untouched(episode) or _body(episode[-1]) != "sop.EpisodeEnded" or robot.chance.random() > FULL_SHARE:
        return False
    steps = sum(event.topic == "robot-steps" for event in episode)
    if any(event.topic == "robot-interventions" for event in episode) or not steps:
        return False
    ending = episode[-1]
    many = [robot.intervention(ending.episode_id, "z" * 950_000) for _ in range(5)]
    # The end comes after them: its sequence is the highest.
    for event, sequence in zip([*many, ending], range(ending.sequence, ending.sequence + 6), strict=True):
        event.datum["sequence"] = sequence
        event.may_repeat = False
    ending.datum["body"][1]["intervention_count"] = 5
    many[-1].fate, many[-1].reasons = DEAD, frozenset({"episode_full", "never_started"})
    episode[-1:] = [*many, ending]
    return True


def _reject(
    episode: list[Event],
    robot: Robot,
    reason: str,
    spoil: Callable[[Event], object],
    fits: Callable[[Event], bool] = lambda event: event.topic != "robot-episodes",
) -> bool:
    """Make one event unusable whose sequence can be told: it is the episode's, and rejected."""
    chosen = [event for event in episode if fits(event) and event.fate == LISTED and event.counted]
    # Of a full episode nothing may be rejected for another reason: what is too much would fit then.
    if not chosen or any(event.fate == EITHER or "episode_full" in event.reasons for event in episode):
        return False
    event = robot.chance.choice(chosen)
    spoil(event)
    event.fate, event.reasons = DEAD, frozenset({reason, "never_started"})
    return True


def _body(event: Event) -> str:
    """Which kind of event of robot-episodes it is."""
    return str(event.datum["body"][0]) if "body" in event.datum else ""


_COMMON = ("episode_id", "robot_id", "boot_epoch", "sequence", "captured_at")


def _some(episode: list[Event], robot: Robot) -> int:
    """The place of some event that is the episode's."""
    return robot.chance.choice([at for at, event in enumerate(episode) if event.counted] or [0])


def _good_step(event: Event) -> bool:
    return event.topic == "robot-steps" and event.fate == LISTED and event.counted


def _untouched(episode: list[Event]) -> bool:
    return all(event.fate == LISTED and event.counted for event in episode)


def _beside(event: Event, reasons: set[str], spoil: str = "") -> Event:
    """A record beside a good one, that is none of the episode's."""
    datum = copy.deepcopy(event.datum)
    return Event(event.topic, datum, event.key, event.line, DEAD, frozenset(reasons), spoil, False, False)


def poisons() -> list[Poison]:
    """All kinds."""
    not_finite = np.array([np.nan] + [0.0] * (STATE - 1), "<f4").tobytes()
    return [
        *(Poison(name, _bytes) for name in SPOILERS),
        Poison("foreign-key", _foreign_key),
        Poison("bad-id", _bad_id),
        Poison("foreign-boot", _foreign_boot),
        Poison("conflict", _conflict),
        Poison("not-finite-state", _number("state", lambda _: not_finite, "not_finite")),
        Poison("not-finite-reward", _number("reward", lambda _: float("inf"), "not_finite")),
        Poison(
            "wrong-length", _number("state", lambda r: b"\0" * 4 * r.chance.choice([0, 1, 99]), "wrong_length")
        ),
        Poison("odd-length", _number("action", lambda _: b"\0" * 7, "wrong_length")),
        Poison("second-start", _second_start),
        Poison("bad-time", _bad_time),
        Poison("bad-intervention", _bad_intervention),
        Poison("bad-frames", _bad_frames),
        Poison("episode-full", _episode_full),
        Poison("bad-features", _bad_features),
        Poison("never-started", _never_started),
    ]
