"""What an operator orders, as a change of a line's rollout: for the command line and the console alike."""

from __future__ import annotations

from infra.policies import rollout
from infra.policies.errors import RolloutRefused
from infra.policies.log import Control
from infra.policies.names import likely_first
from infra.policies.rollout import Transition
from schemas.events import PolicyVersion


def no_versions(control: Control, line: str) -> str:
    """What to say, and to do, where a line has no version that could run; nothing where it has some."""
    if control.versions.get(line):
        return ""
    refused = {key: why for key, why in control.refused.items() if key.startswith(f"{line}/")}
    if refused:
        key, why = list(refused.items())[-1]
        count = f" ({len(refused)} are not)" if len(refused) > 1 else ""
        return f"the line {line} has no version that is believed{count}: {key}: {why}"
    known = (
        f"known lines: {likely_first(line, control.versions)}" if control.versions else "nor has any other line"
    )
    return (
        f"the line {line} has no versions; {known}. Name the one you mean (--policy), or start its learner "
        f"(SOP_LEARNER__POLICY={line} sop learn), which publishes them"
    )


def published(control: Control, line: str, version: int) -> int:
    """The version, if it can be rolled out.

    Raises:
        RolloutRefused: it was never published, or its announcement is not believed.
    """
    versions = _versions(control, line)
    if version not in versions:
        there = f"there are {', '.join(map(str, sorted(versions)))}"
        refused = control.refused.get(f"{line}/{version}")
        raise RolloutRefused(
            f"no version {version} of {line}" + (f" can be believed: {refused}" if refused else f"; {there}")
        )
    return version


def hold(control: Control, line: str, version: int | None = None) -> Transition:
    """All robots run this version, by default the newest."""
    return rollout.hold(line, published(control, line, version or max(_versions(control, line))))


def promote(control: Control, line: str, version: int | None = None) -> Transition:
    """All robots run this version, by default the canary, and hold it."""
    if line not in control.rollouts:
        _versions(control, line)
    return rollout.promote(line, published(control, line, version) if version else None)


def rollback(control: Control, line: str, to: int | None = None) -> Transition:
    """Back to a version: by default the one before, or from a canary to what the others run."""
    if to is not None:
        return rollout.rollback(line, published(control, line, to))
    state = control.rollouts.get(line)
    if state is None or state.current is None:  # the newest is followed: the one before it
        earlier = sorted(_versions(control, line))[:-1]
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
    older = [number for number in _versions(control, line) if number < version]
    held = published(control, line, base) if base else max(older, default=None)
    published(control, line, version)
    return rollout.start_canary(line, version, fraction=fraction, robots=robots, base=held)


def _versions(control: Control, line: str) -> dict[int, PolicyVersion]:
    """Versions of a line, one at least. Raises RolloutRefused: it has none."""
    if why := no_versions(control, line):
        raise RolloutRefused(why)
    return control.versions[line]
