"""Partition numbers that cannot go on while others do: why, and when each is tried again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from infra.backoff import Backoff
from infra.clock import Clock


@dataclass
class _Hold:
    backoff: Backoff
    reason: str


class Holds:
    """Held partition numbers; pauses between attempts grow for each by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holds: dict[int, _Hold] = {}

    def failed(self, number: int, error: Exception) -> float:
        """A partition number cannot go on; the seconds to wait before it is tried again."""
        hold = self._holds.setdefault(number, _Hold(Backoff(self._clock), ""))
        hold.reason = str(error)
        return hold.backoff.failed()

    def over(self, number: int) -> bool:
        """It goes on; whether it had been held."""
        return self._holds.pop(number, None) is not None

    def waits(self, number: int) -> bool:
        """Whether it is too early to try again."""
        return number in self._holds and self._holds[number].backoff.remaining() > 0

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all others: they belong to somebody else."""
        self._holds = {number: hold for number, hold in self._holds.items() if number in numbers}

    def __contains__(self, number: int) -> bool:
        return number in self._holds

    def __len__(self) -> int:
        return len(self._holds)

    def __str__(self) -> str:
        """Which are held and why, as an operator reads it; empty if none is."""
        return "; ".join(
            f"partition {number} waits: {hold.reason}" for number, hold in sorted(self._holds.items())
        )
