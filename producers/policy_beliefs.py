"""What a robot believes about its policy line: announcements and rollouts that it heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from infra.clock import Clock
from infra.policies.announced import Announced
from infra.policies.errors import RolloutRefused, SignatureRefused
from infra.policies.keys import Keyring
from infra.policies.names import LINE, likely_first
from infra.policies.rollout import version_for
from producers.policy_feed import Heard
from producers.policy_refusals import Cause, Refusals
from schemas.events import PolicyRollout, PolicyVersion, RolloutMode
from schemas.topics import POLICY_VERSIONS

_UNKNOWN = -1
_log = structlog.get_logger(__name__)


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
    _lines: set[str] = field(default_factory=set)
    _heard_history: bool = False

    def __post_init__(self) -> None:
        self._refusals = Refusals(self.policy, self.clock)

    def recall(self, announced: Announced[PolicyVersion]) -> bool:
        """Take in an announcement from disk; whether it is believed still."""
        return self._believe_version(announced, _UNKNOWN)

    def recall_rollout(self, announced: Announced[PolicyRollout]) -> None:
        """Take in the rollout from disk. One that is no longer believed makes the robot doubt, not forget."""
        self._believe_rollout(announced, _UNKNOWN, saved=True)

    def recalled(self) -> None:
        """That was all that the disk holds."""
        self._refusals.settle("version", "rollout")

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
                else:
                    self._lines.add(self.policy)
                self.refuse(what, heard.problem)
            return
        if isinstance(announced.event, PolicyVersion):
            self._lines.add(announced.event.policy)
        if announced.event.policy != self.policy:
            if ours:
                self._refuse_foreign(announced)
        elif isinstance(announced.event, PolicyVersion):
            self._believe_version(announced, heard.offset)
        else:
            self._believe_rollout(announced, heard.offset, saved=False)

    def _refuse_foreign(self, announced: Announced[PolicyVersion] | Announced[PolicyRollout]) -> None:
        event, why = announced.event, f"sent under the key {announced.key!r}, where nobody looks for it"
        try:
            announced.require(self.learners if isinstance(event, PolicyVersion) else self.operators)
        except (SignatureRefused, RolloutRefused) as error:
            why = str(error)
        number = f"v{event.version}" if isinstance(event, PolicyVersion) else f"rollout {event.generation}"
        self.refuse(f"{event.policy} {number}", why)

    def heard(self, *, everything: bool) -> None:
        """Nothing more comes now; `everything`: that was all of the control topics when they were first asked.

        Of the rollouts that is known with the first records (`PolicyFeed.poll`): older ones before that are
        history, which every boot hears again, and from then on they are replayed.
        """
        self._heard_history = True
        self._refusals.settle("rollout")
        if everything:
            self._refusals.settle("version")

    def unknown_line(self) -> str:
        """What to say where nothing of this line was ever announced, once everything was heard; else nothing."""
        if self.announced or self.policy in self._lines:
            return ""
        known = [line for line in self._lines if LINE.fullmatch(line)]
        rest = f"known: {likely_first(self.policy, known)}" if known else "nor any other: has `sop learn` run?"
        return f"no policy line {self.policy!r} on {POLICY_VERSIONS} yet; {rest}"

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
        self._refusals.withdraw(what)

    def refuse(self, what: str, why: str, version: int | None = None) -> None:
        """Note that something is refused."""
        self._refusals.add(what, why, version)

    def refusals(self, running: int) -> tuple[str, ...]:
        """What was refused, in words: of versions above the one that runs, of late, and what makes it doubt."""
        return self._refusals.told(running, self._doubt if self.rollout is None else "")

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
        what, older = f"{event.policy} v{event.version}", _older_content(event.version, offset)
        try:
            announced.require(self.learners)
        except SignatureRefused as error:
            self._refusals.wait(Cause(f"version: {error}", "version", f": {error}"), event.version)
            return False
        known = self.announced.get(event.version)
        before = self._heard_at.get(event.version, _UNKNOWN)
        if known is not None and known.body == announced.body:
            if before == _UNKNOWN:
                self._refusals.forget(older)  # what was heard on the way here was history
            elif offset > before and event.version < max(self.announced):
                self.refuse(what, f"announced again at {offset}, behind newer versions: replayed, and ignored")
            self._heard_at[event.version] = max(before, offset)
            return True
        if known is not None and event.published_at <= known.event.published_at:
            self._refusals.wait(older, event.version)
            return False
        self.announced[event.version] = announced
        self._heard_at[event.version] = offset
        return True

    def _believe_rollout(self, announced: Announced[PolicyRollout], offset: int, *, saved: bool) -> None:
        event, held = announced.event, self.rollout
        try:
            announced.require(self.operators)
        except (SignatureRefused, RolloutRefused) as error:
            cause = Cause(f"rollout: {error}", "rollout", f": {error}")
            self._doubt = cause.key
            self._refusals.wait(cause, event.generation)
            return
        if held is not None and event.generation <= held.event.generation:
            if announced.body == held.body:
                if self._rollout_at == _UNKNOWN or offset <= self._rollout_at:  # the topic is read from its start
                    self._refusals.was_history("rollout", event.generation)
                    self._refusals.withdraw(_OLDER)
                self._rollout_at = offset
            elif event.generation == held.event.generation:
                self.refuse(
                    f"{event.policy} rollout {event.generation}", f"another generation {event.generation} is known"
                )
            else:
                says = f" is older than generation {held.event.generation}: replayed, and ignored"
                self._refusals.wait(Cause(_OLDER, "rollout", says), event.generation)
            return
        if not saved:
            self.remember(announced)
        self.rollout, self._rollout_at = announced, offset
        for over in (_OLDER, _LOST):
            self._refusals.withdraw(over)
        if not self._heard_history:
            self._refusals.was_history("rollout", event.generation)
        _log.info("policy_rollout", policy=self.policy, generation=event.generation, reason=event.reason)


def _older_content(version: int, offset: int) -> Cause:
    says = f": announced at {offset} with an older content than before: replayed, and ignored"
    return Cause(f"older content of v{version}", "version", says)


_OLDER = "older rollout"
_LOST = "the rollout on disk"
