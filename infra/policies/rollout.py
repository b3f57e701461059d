"""What a rollout state means, and how one follows from another. Pure: no Kafka, no clock, no keys.

A line without any state follows its newest version. Once a version is held, later ones are candidates: robots run
them only as a canary, or after `promote`. One canary at a time; others wait in `queued`. A rollback holds, clears
what was tried and waited, and marks the version from which the learner goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.policies.errors import RolloutRefused
from schemas.events import Canary, Pin, PolicyRollout, Restored, RolloutMode


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a rollout, why, and when (aware)."""

    author: str
    reason: str
    at: datetime


Transition = Callable[[PolicyRollout | None, Change], PolicyRollout]
"""From the newest state of a line, or None before the first, to the next one. Raises RolloutRefused."""


def share_of(policy: str, robot_id: str) -> float:
    """Where a robot stands in its fleet, in [0, 1), whatever the version: a canary that grows keeps its robots."""
    digest = hashlib.sha256(f"{policy}/{robot_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def tries(state: PolicyRollout, robot_id: str) -> bool:
    """Whether this robot runs the canary; a pinned one never does."""
    canary = state.canary
    if canary is None or any(pin.robot_id == robot_id for pin in state.pins):
        return False
    return robot_id in canary.robots or share_of(state.policy, robot_id) < canary.fraction


def version_for(state: PolicyRollout | None, robot_id: str, newest: int | None) -> int | None:
    """The version that a robot should run.

    Args:
        state: the newest state of its line; None: the newest version is followed.
        robot_id: which robot.
        newest: highest version that was published; None: none was.
    """
    if state is None:
        return newest
    for pin in state.pins:
        if pin.robot_id == robot_id:
            return pin.version
    if state.canary is not None and tries(state, robot_id):
        return state.canary.version
    return newest if state.mode is RolloutMode.FOLLOW_LATEST else state.current


def follow(policy: str) -> Transition:
    """Every robot takes the newest version from now on; what was tried or waited is over."""

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        previous = (state.current or state.previous) if state else None
        over: dict[str, Any] = {"current": None, "canary": None, "queued": (), "restored": None}
        return _next(policy, state, by, mode=RolloutMode.FOLLOW_LATEST, previous=previous, **over)

    return change


def hold(policy: str, version: int) -> Transition:
    """Every robot runs this version, and stays there; a canary of another version goes on."""

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        canary, queued = _without(state, version)
        held = _holding(state, version) | {"canary": canary, "queued": queued}
        return _settled(_next(policy, state, by, **held), by)

    return change


def promote(policy: str, version: int | None = None) -> Transition:
    """A version becomes current for all; by default the canary. The next canary that waits begins.

    A canary, or one that waits, that is older than what is promoted is dropped.

    Raises (the transition):
        RolloutRefused: no version is named, and there is no canary.
    """

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        canary = state.canary if state else None
        chosen = version if version is not None else (canary.version if canary else None)
        if chosen is None:
            raise RolloutRefused(f"{policy} has no canary to promote; name a version")
        kept = canary if canary and canary.version > chosen else None
        queued = tuple(waiting for waiting in (state.queued if state else ()) if waiting.version > chosen)
        held = _holding(state, chosen) | {"canary": kept, "queued": queued, "restored": None}
        return _settled(_next(policy, state, by, **held), by)

    return change


def rollback(policy: str, version: int | None = None) -> Transition:
    """Back to a version: by default the one that is current while a canary is tried, else the one before it.

    It is held, the canary and those that wait are given up, and the learner goes on from it. What was current is
    not what was `previous` then: neither a second rollback nor a robot that needs a stand-in may come back to it.

    Raises (the transition):
        RolloutRefused: no version is named, and there is none before.
    """

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        chosen = version
        if chosen is None and state is not None:
            chosen = state.current if state.canary is not None else state.previous
        if chosen is None:
            raise RolloutRefused(_nothing_before(policy, state))
        mark = Restored(generation=(state.generation if state else 0) + 1, version=chosen)
        stays = state is not None and state.current == chosen  # only a canary is given up
        previous = state.previous if state is not None and stays else None
        return _next(
            policy,
            state,
            by,
            mode=RolloutMode.HOLD,
            current=chosen,
            previous=previous,
            canary=None,
            queued=(),
            restored=mark,
        )

    return change


def start_canary(
    policy: str, version: int, *, fraction: float = 0.0, robots: Iterable[str] = (), base: int | None = None
) -> Transition:
    """A part of the fleet tries a version; behind another canary it waits its turn.

    Args:
        policy: the line.
        version: what is tried.
        fraction: share of the fleet; 0 where robots are named.
        robots: their names; none where a fraction is given.
        base: what the others hold, needed where nothing is held yet.

    Raises (the transition):
        RolloutRefused: neither a fraction nor names are given, or both; nothing is held and there is no `base`;
            the version is current, tried already, or waits to be.
    """
    named = tuple(sorted(set(robots)))

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        if (fraction > 0) == bool(named) or not 0 <= fraction < 1:
            raise RolloutRefused("a canary has either a fraction of the fleet, between 0 and 1, or named robots")
        held = state.current if state is not None and state.mode is RolloutMode.HOLD else base
        if held is None:
            raise RolloutRefused(f"{policy} holds no version to compare with; name one (--base)")
        if version == held:
            raise RolloutRefused(f"version {version} is current already")
        known = [*((state.canary,) if state and state.canary else ()), *(state.queued if state else ())]
        if any(canary.version == version for canary in known):
            raise RolloutRefused(f"version {version} is tried already, or waits to be")
        queued = (*(state.queued if state else ()), Canary(version=version, fraction=fraction, robots=named))
        return _settled(_next(policy, state, by, **_holding(state, held), queued=queued), by)

    return change


def pin(policy: str, robot_id: str, version: int) -> Transition:
    """One robot runs one version, whatever the others do."""

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        others = [found for found in (state.pins if state else ()) if found.robot_id != robot_id]
        pins = sorted([*others, Pin(robot_id=robot_id, version=version)], key=lambda found: found.robot_id)
        return _next(policy, state, by, pins=tuple(pins))

    return change


def unpin(policy: str, robot_id: str) -> Transition:
    """The robot does as the others again.

    Raises (the transition):
        RolloutRefused: it is not pinned.
    """

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        pins = state.pins if state else ()
        left = tuple(found for found in pins if found.robot_id != robot_id)
        if left == pins:
            raise RolloutRefused(f"{robot_id} is not pinned")
        return _next(policy, state, by, pins=left)

    return change


def going_on_from(generation: int, transition: Transition, policy: str) -> Transition:
    """The same change, of which comes a state one above `generation`, whatever the one before was."""

    def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
        begun = state or _nothing_said(policy, by)
        return transition(begun.model_copy(update={"generation": generation}), by)

    return change


def require_sound(state: PolicyRollout) -> None:
    """Refuse a state that does not make sense, whoever signed it.

    Raises:
        RolloutRefused: the text says what is wrong.
    """
    held = state.mode is RolloutMode.HOLD
    canaries = [*((state.canary,) if state.canary else ()), *state.queued]
    wrong = [
        (state.generation < 1, "generations begin at 1"),
        (held != (state.current is not None), "a version is current exactly while one is held"),
        (bool(canaries) and not held, "canaries need a version that is held"),
        (state.canary is None and bool(state.queued), "a canary waits, and none is tried"),
        (any(canary.version == state.current for canary in canaries), "a canary is the current version"),
        (any(not 0 <= canary.fraction < 1 for canary in canaries), "a fraction is in [0, 1)"),
        (len({found.robot_id for found in state.pins}) != len(state.pins), "a robot is pinned twice"),
    ]
    for is_wrong, what in wrong:
        if is_wrong:
            raise RolloutRefused(f"generation {state.generation} of {state.policy} makes no sense: {what}")


def versions_in(state: PolicyRollout) -> set[int]:
    """Every version that the state names: robots may be told to run it, or the learner to go on from it."""
    named = [state.current, state.previous, state.restored.version if state.restored else None]
    canaries = [*((state.canary,) if state.canary else ()), *state.queued]
    found = [*named, *(canary.version for canary in canaries), *(found.version for found in state.pins)]
    return {version for version in found if version is not None}


def _next(policy: str, state: PolicyRollout | None, by: Change, **changes: Any) -> PolicyRollout:
    state = state or _nothing_said(policy, by)
    told = {"author": by.author, "reason": by.reason, "written_at": by.at, "key_id": None, "signature": None}
    return state.model_copy(update={"generation": state.generation + 1, **told, **changes})


def _nothing_said(policy: str, by: Change) -> PolicyRollout:
    """What holds before the first state."""
    return PolicyRollout(
        policy=policy, generation=0, mode=RolloutMode.FOLLOW_LATEST, author="", reason="", written_at=by.at
    )


def _settled(state: PolicyRollout, by: Change) -> PolicyRollout:
    """The first canary that waits begins if none is tried."""
    if state.canary is not None or not state.queued:
        return state
    first, *others = state.queued
    begun = first.model_copy(update={"began_at": by.at})
    return state.model_copy(update={"canary": begun, "queued": tuple(others)})


def _without(state: PolicyRollout | None, version: int) -> tuple[Canary | None, tuple[Canary, ...]]:
    if state is None:
        return None, ()
    canary = state.canary if state.canary and state.canary.version != version else None
    return canary, tuple(waiting for waiting in state.queued if waiting.version != version)


def _nothing_before(policy: str, state: PolicyRollout | None) -> str:
    if state is not None and state.restored is not None and state.restored.version == state.current:
        return f"{policy} was rolled back to version {state.current} already; to go further back, name one (--to)"
    return f"{policy} has no earlier version to go back to; name one (--to)"


def _holding(state: PolicyRollout | None, version: int) -> dict[str, Any]:
    """Fields of a state that holds `version`, with what was current before."""
    previous = None
    if state is not None:
        previous = state.previous if state.current in (None, version) else state.current
    return {"mode": RolloutMode.HOLD, "current": version, "previous": previous}
