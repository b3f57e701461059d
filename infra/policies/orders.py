"""What an operator orders, as a change of a line's rollout: for the command line and the console alike."""

from __future__ import annotations

from infra.policies import rollout
from infra.policies.errors import RolloutRefused
from infra.policies.log import Control
from infra.policies.rollout import Transition


def published(control: Control, line: str, version: int) -> int:
    """The version, if it can be rolled out.

    Raises:
        RolloutRefused: it was never published, or its announcement is not believed.
    """
    versions = control.versions.get(line, {})
    if version not in versions:
        there = f"there are {', '.join(map(str, sorted(versions)))}" if versions else "there is none"
        refused = control.refused.get(f"{line}/{version}")
        raise RolloutRefused(
            f"no version {version} of {line}" + (f" can be believed: {refused}" if refused else f"; {there}")
        )
    return version


def hold(control: Control, line: str, version: int | None = None) -> Transition:
    """All robots run this version, by default the newest."""
    chosen = version or max(control.versions.get(line, {}), default=0)
    return rollout.hold(line, published(control, line, chosen))


def promote(control: Control, line: str, version: int | None = None) -> Transition:
    """All robots run this version, by default the canary, and hold it."""
    return rollout.promote(line, published(control, line, version) if version else None)


def rollback(control: Control, line: str, to: int | None = None) -> Transition:
    """Back to a version: by default the one before, or from a canary to what the others run."""
    if to is not None:
        return rollout.rollback(line, published(control, line, to))
    state = control.rollouts.get(line)
    if state is None or state.current is None:  # the newest is followed: the one before it
        earlier = sorted(control.versions.get(line, {}))[:-1]
        return rollout.rollback(line, earlier[-1] if earlier else None)
    return rollout.rollback(line)


def canary(
    control: Control,
    line: str,
    version: int,
    *,
    fraction: float = 0.0,
    robots: tuple[str, ...] = (),
    base: int | None = None,
) -> Transition:
    """A part of the fleet tries a version; `base` is what the others run where nothing is held yet."""
    older = [number for number in control.versions.get(line, {}) if number < version]
    held = published(control, line, base) if base else max(older, default=None)
    published(control, line, version)
    return rollout.start_canary(line, version, fraction=fraction, robots=robots, base=held)
