"""Versions and rollouts as a person reads them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.policies.log import Control
from infra.policies.orders import no_versions
from schemas.events import Canary, PolicyRollout, RolloutMode


def sentence(state: PolicyRollout) -> str:
    """A state in one line."""
    what = (
        "the newest version is followed"
        if state.mode is RolloutMode.FOLLOW_LATEST
        else f"v{state.current} is held"
    )
    parts = [what]
    if state.canary is not None:
        parts.append(f"{_rule(state.canary)} try v{state.canary.version}")
    parts += [f"v{waiting.version} waits to be tried" for waiting in state.queued]
    parts += [f"{pin.robot_id} is pinned to v{pin.version}" for pin in state.pins]
    if state.restored is not None:
        parts.append(f"the learner goes on from v{state.restored.version}")
    return f"{state.policy}, generation {state.generation}: {'; '.join(parts)}"


def show_rollout(policy: str, control: Control, console: Console) -> None:
    """The newest state of a line, and what was not believed."""
    state = control.rollouts.get(policy)
    unknown = control.unbelieved.get(policy)
    if state is None and not unknown:
        console.print(f"{policy}: nothing was ever said; the newest version is followed", highlight=False)
    elif state is not None:
        console.print(sentence(state), highlight=False, soft_wrap=True)
        signed = f"signed by key {state.key_id}" if state.key_id else "not signed"
        why = f": {state.reason}" if state.reason else ""
        at = state.written_at.isoformat(sep=" ", timespec="seconds")
        console.print(f"by {state.author} at {at}, {signed}{why}", highlight=False, markup=False, soft_wrap=True)
    if unknown:
        console.print(Text(unknown, style="red"), soft_wrap=True)
    if why := no_versions(control, policy):
        console.print(Text(why), soft_wrap=True)
    _show_refused(control, console)


def show_versions(policy: str, control: Control, console: Console) -> None:
    """One row for each version; where there is none, what to do."""
    if why := no_versions(control, policy):
        console.print(Text(why), soft_wrap=True)
        _show_refused(control, console)
        return
    versions, state = control.versions.get(policy, {}), control.rollouts.get(policy)
    table = Table("version", "is", "parent", "step", "episodes", "MB", "published", "key", title=policy)
    for number, event in sorted(versions.items(), reverse=True):
        table.add_row(
            str(number),
            _role(state, number, max(versions)),
            str(event.parent_version or ""),
            str(event.learner_step),
            str(event.episodes_admitted),
            f"{event.size_bytes / 1e6:.1f}",
            event.published_at.isoformat(sep=" ", timespec="seconds"),
            event.key_id or "unsigned",
        )
    console.print(table)
    _show_refused(control, console)


def _show_refused(control: Control, console: Console) -> None:
    alike: dict[str, list[str]] = {}
    for key, why in control.refused.items():  # in the order of the log: the newest is the last
        alike.setdefault(why, []).append(key)
    for why, keys in sorted(alike.items(), key=lambda item: item[1][-1]):
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        console.print(Text(f"not believed: {keys[-1]}{others}: {why}", style="red"), soft_wrap=True)


def _role(state: PolicyRollout | None, version: int, newest: int) -> str:
    if state is None or state.mode is RolloutMode.FOLLOW_LATEST:
        roles = ["current"] if version == newest else []
    elif version == state.current:
        roles = ["current"]
    elif state.canary is not None and version == state.canary.version:
        roles = [f"canary ({_rule(state.canary)})"]
    elif any(waiting.version == version for waiting in state.queued):
        roles = ["waits"]
    else:
        roles = ["candidate"] if version > (state.current or 0) else []
    pins = state.pins if state else ()
    return ", ".join([*roles, *(f"pinned: {pin.robot_id}" for pin in pins if pin.version == version)])


def _rule(canary: Canary) -> str:
    return ", ".join(canary.robots) if canary.robots else f"{canary.fraction:.0%} of the robots"
