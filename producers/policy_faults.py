"""Which versions a robot does not take: until its next boot, or for a while."""

from __future__ import annotations

from dataclasses import dataclass

from infra.clock import Clock
from schemas.events import PolicyVersion

# Seconds before what could not be had is asked for again, doubled each time: where asking is one small request,
# and where only the whole download shows that it is wrong.
_FIRST, _LONGEST = 5.0, 600.0
_FIRST_DEAR, _LONGEST_DEAR = 600.0, 6 * 3600.0

_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class _Wait:
    pause: float
    until: float


class Faults:
    """Of one line. A version that is made anew, with other content, is another one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bad: set[_Key] = set()
        self._waits: dict[_Key, _Wait] = {}

    def for_good(self, event: PolicyVersion) -> None:
        """Not before the next boot: it is for another robot, or cannot be loaded."""
        self._bad.add(_key(event))

    def for_now(self, event: PolicyVersion, *, dear: bool) -> float:
        """Not for a while, which grows each time: seconds.

        dear: it took the whole download to find out.
        """
        first, longest = (_FIRST_DEAR, _LONGEST_DEAR) if dear else (_FIRST, _LONGEST)
        before = self._waits.get(_key(event))
        pause = min(longest, max(first, 2 * before.pause if before else 0.0))
        self._waits[_key(event)] = _Wait(pause, self._clock.monotonic() + pause)
        return pause

    def came(self, event: PolicyVersion) -> bool:
        """It can be had after all; whether it was waited for."""
        return self._waits.pop(_key(event), None) is not None

    def is_bad(self, event: PolicyVersion) -> bool:
        """Whether it is not to run before the next boot."""
        return _key(event) in self._bad

    def waits(self, event: PolicyVersion) -> bool:
        """Whether it is not to be asked for yet."""
        wait = self._waits.get(_key(event))
        return wait is not None and self._clock.monotonic() < wait.until


def _key(event: PolicyVersion) -> _Key:
    return event.version, event.sha256
