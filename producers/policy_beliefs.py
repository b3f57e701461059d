"""What a robot believes about its policy line: announcements and rollouts that it heard; why it refused others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from infra.clock import Clock
from infra.policies.announced import Announced
from infra.policies.errors import RolloutRefused, SignatureRefused
from infra.policies.keys import Keyring
from infra.policies.rollout import version_for
from producers.policy_feed import Heard
from schemas.events import PolicyRollout, PolicyVersion, RolloutMode

# A refusal is told in heartbeats for so long, or for as long as what was refused is above what the robot runs.
_TELL_SECONDS = 600.0
_MOST_REFUSALS = 8
_UNKNOWN = -1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    version: int | None
    at: float


@dataclass
class Beliefs:
    """One robot's view of one line.

    learners, operators: whose announcements and rollouts are believed.
    remember: makes a rollout survive the next boot; it is called before the rollout counts, and may raise OSError.
    """

    policy: str
    robot_id: str
    learners: Keyring
    operators: Keyring
    clock: Clock
    remember: Callable[[Announced[PolicyRollout]], None]
    announced: dict[int, Announced[PolicyVersion]] = field(default_factory=dict)
    rollout: Announced[PolicyRollout] | None = None
    _heard_at: dict[int, int] = field(default_factory=dict)
    _rollout_at: int = _UNKNOWN
    _doubt: str = ""
    _refusals: dict[str, _Refusal] = field(default_factory=dict)

    def recall(self, announced: Announced[PolicyVersion]) -> bool:
        """Take in an announcement from disk; whether it is believed still."""
        return self._believe_version(announced, _UNKNOWN)

    def recall_rollout(self, announced: Announced[PolicyRollout]) -> None:
        """Take in the rollout from disk. One that is no longer believed makes the robot doubt, not forget."""
        self._believe_rollout(announced, _UNKNOWN, saved=True)

    def hear(self, heard: Heard) -> None:
        """Take in one record; what is refused is noted with its reason.

        Raises:
            OSError: a rollout could not be saved; hear it again.
        """
        announced = heard.announced
        ours = heard.key == self.policy or heard.key.startswith(f"{self.policy}/")
        if announced is None:
            if ours:
                what = f"record {heard.key} at {heard.offset}"
                if heard.key == self.policy:
                    self._doubt = what
                self.refuse(what, heard.problem)
        elif ours or announced.event.policy == self.policy:
            if isinstance(announced.event, PolicyVersion):
                self._believe_version(announced, heard.offset)
            else:
                self._believe_rollout(announced, heard.offset, saved=False)

    def doubt(self, why: str) -> None:
        """There was a rollout, and nobody can say which: until one is believed, the robot stays as it is."""
        self._doubt = _LOST
        self.refuse(_LOST, f"{why}; until one is heard, what ran last goes on")

    @property
    def generation(self) -> int:
        """Of the rollout that is believed; 0 without one."""
        return self.rollout.event.generation if self.rollout else 0

    def withdraw(self, what: str) -> None:
        """It was refused, and is not any more."""
        self._refusals.pop(what, None)

    def refuse(self, what: str, why: str, version: int | None = None) -> None:
        """Note that something is refused."""
        _log.error("policy_refused", policy=self.policy, what=what, error=why)
        text = why if why.startswith(what) else f"{what}: {why}"
        self._refusals.pop(what, None)
        self._refusals[what] = _Refusal(text, version, self.clock.monotonic())
        while len(self._refusals) > _MOST_REFUSALS:
            self._refusals.pop(next(iter(self._refusals)))

    def refusals(self, running: int) -> tuple[str, ...]:
        """What was refused, in words: of versions above the one that runs, of late, and what makes it doubt."""
        now, doubt = self.clock.monotonic(), self._doubt if self.rollout is None else ""
        return tuple(
            refusal.why
            for what, refusal in list(self._refusals.items())
            if now - refusal.at < _TELL_SECONDS or (refusal.version or 0) > running or what == doubt
        )

    def preferences(self) -> list[int]:
        """Versions that this robot should run, the best first; empty where it must stay with what it has.

        Where what it should run cannot be had, versions that the rollout trusts stand in, or, where the newest is
        followed, the ones before.
        """
        newest = max(self.announced, default=None)
        state = self.rollout.event if self.rollout else None
        if self._doubt and state is None:
            return []
        wanted = version_for(state, self.robot_id, newest)
        if state is None or (state.mode is RolloutMode.FOLLOW_LATEST and wanted == newest):
            return sorted(self.announced, reverse=True)
        order = [wanted, state.current, state.previous]
        return [version for version in dict.fromkeys(order) if version is not None]

    def _believe_version(self, announced: Announced[PolicyVersion], offset: int) -> bool:
        event = announced.event
        what = f"{event.policy} v{event.version}"
        try:
            announced.require(self.learners)
        except SignatureRefused as error:
            self.refuse(what, str(error), event.version)
            return False
        known = self.announced.get(event.version)
        if known is not None and known.body == announced.body:
            before = self._heard_at.get(event.version, _UNKNOWN)
            if before != _UNKNOWN and offset > before and event.version < max(self.announced):
                self.refuse(what, f"announced again at {offset}, behind newer versions: replayed, and ignored")
            self._heard_at[event.version] = max(before, offset)
            return True
        if known is not None and event.published_at <= known.event.published_at:
            self.refuse(what, f"announced at {offset} with an older content than before: replayed, and ignored")
            return False
        self.announced[event.version] = announced
        self._heard_at[event.version] = offset
        return True

    def _believe_rollout(self, announced: Announced[PolicyRollout], offset: int, *, saved: bool) -> None:
        event, held = announced.event, self.rollout
        what = f"{event.policy} rollout {event.generation}"
        try:
            announced.require(self.operators)
        except (SignatureRefused, RolloutRefused) as error:
            self._doubt = what
            self.refuse(what, str(error))
            return
        if held is not None and event.generation <= held.event.generation:
            if announced.body == held.body:
                self._rollout_at = max(self._rollout_at, offset)
                self._refusals.pop(_OLDER, None)  # what was heard on the way here was history
            elif event.generation == held.event.generation:
                self.refuse(what, f"another generation {event.generation} is known")
            else:
                self.refuse(
                    _OLDER, f"{what} is older than generation {held.event.generation}: replayed, and ignored"
                )
            return
        if not saved:
            self.remember(announced)
        self.rollout, self._rollout_at = announced, offset
        for over in (_OLDER, _LOST):
            self._refusals.pop(over, None)
        _log.info("policy_rollout", policy=self.policy, generation=event.generation, reason=event.reason)


_OLDER = "older rollout"
_LOST = "the rollout on disk"
