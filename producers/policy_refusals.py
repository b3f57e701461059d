"""What a robot refuses of its policy line, and why, in words: told in heartbeats, and once in the log.

Refusals with one cause (a key that is not pinned refuses every version) are one. What may turn out to be history,
because the control topics are read from their beginnings at each boot, waits until that is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import structlog

from infra.clock import Clock

# A refusal is told in heartbeats for so long, or for as long as what was refused is above what the robot runs.
_TELL_SECONDS = 600.0
_MOST = 8

Kind = Literal["version", "rollout"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why versions or rollouts are refused: what holds of one may hold of others, too.

    key: what they have in common.
    says: follows the name of what is refused, with the sign or space between.
    """

    key: str
    kind: Kind
    says: str = field(compare=False)

    def of(self, policy: str, number: int) -> str:
        """The name of what is refused."""
        return f"{policy} v{number}" if self.kind == "version" else f"{policy} rollout {number}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    text: str
    version: int | None
    at: float
    numbers: frozenset[int] = frozenset()


class Refusals:
    """Of one line, to one robot."""

    def __init__(self, policy: str, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._told: dict[str, _Refusal] = {}
        self._waiting: dict[Cause, set[int]] = {}

    def add(self, what: str, why: str, version: int | None = None) -> None:
        """Something is refused, for a reason of its own."""
        _log.error("policy_refused", policy=self._policy, what=what, error=why)
        text = why if why.startswith(what) else f"{what}: {why}"
        self._tell(what, _Refusal(text, version, self._clock.monotonic()))

    def wait(self, cause: Cause, number: int) -> None:
        """It is refused, and told with others of that cause at `settle`, unless it was history."""
        self._waiting.setdefault(cause, set()).add(number)

    def forget(self, cause: Cause) -> None:
        """What waits for this cause was nothing but history."""
        self._waiting.pop(cause, None)

    def was_history(self, kind: Kind, below: int) -> None:
        """Of what waits, that with a lower number was nothing but history."""
        for cause in [cause for cause in self._waiting if cause.kind == kind]:
            left = {number for number in self._waiting.pop(cause) if number >= below}
            if left:
                self._waiting[cause] = left

    def settle(self, *kinds: Kind) -> None:
        """Nothing of these kinds waits any more: each cause is told and logged, for its newest, with a count."""
        for cause in [cause for cause in self._waiting if cause.kind in kinds]:
            before = self._told.get(cause.key)
            numbers = frozenset(self._waiting.pop(cause)) | (before.numbers if before else frozenset())
            newest, others = max(numbers), len(numbers) - 1
            likewise = f"; likewise {others} older {cause.kind}{'s' if others > 1 else ''}" if others else ""
            text = f"{cause.of(self._policy, newest)}{cause.says}{likewise}"
            _log.error("policy_refused", policy=self._policy, error=text, alike=len(numbers))
            version = newest if cause.kind == "version" else None
            self._tell(cause.key, _Refusal(text, version, self._clock.monotonic(), numbers))

    def withdraw(self, key: str) -> None:
        """It was refused, and is not any more; by the name or the cause's key that it was added under."""
        self._told.pop(key, None)

    def told(self, running: int, doubt: str) -> tuple[str, ...]:
        """What was refused of late, of versions above the one that runs, and under the key `doubt`; in words."""
        now = self._clock.monotonic()
        return tuple(
            refusal.text
            for key, refusal in list(self._told.items())
            if now - refusal.at < _TELL_SECONDS or (refusal.version or 0) > running or key == doubt
        )

    def _tell(self, key: str, refusal: _Refusal) -> None:
        self._told.pop(key, None)
        self._told[key] = refusal
        for oldest in list(self._told)[:-_MOST]:
            self._told.pop(oldest, None)  # the control loop's thread tells, too
