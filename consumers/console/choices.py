"""What a reader chose, from the address of a page. Everything is checked here; what is wrong is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from consumers.console.asking import Trouble

SOURCES: Final = ("ONLINE", "EVALUATION", "DEMONSTRATION")
NAMES: Final = (
    *("window", "task", "robot", "source", "outcome", "policy", "version", "helped", "reason"),
    *("before", "behind"),
)
"""All that the addresses of pages ask for."""
OUTCOMES: Final = ("success", "failure", "unknown")
_LONGEST_TEXT = 200
_YEARS = range(1900, 2300)
"""What ClickHouse's DateTime64 can hold."""

_FEWEST_BINS, _MOST_BINS, _IN_A_BIN = 6, 40, 12
_BINS: Final = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14_400,
    21_600,
    43_200,
    86_400,
    604_800,
)
"""Seconds; what people count time in."""


@dataclass(frozen=True, slots=True)
class Window:
    """How far a page looks back."""

    name: str
    label: str
    seconds: int

    def since(self, now: datetime) -> str:
        """Its begin as ClickHouse reads it, UTC, cut to the hour: the views' hours are whole ones."""
        return self._begin(now).strftime("%Y-%m-%d %H:00:00")

    def bound(self, now: datetime) -> dict[str, object]:
        """What a query of single episodes binds: `since`, so that it reads no older hours, and `begin`.

        `begin` is cut to the minute, so that equal questions within one are the same question.
        """
        return {"since": self.since(now), "begin": self._begin(now).strftime("%Y-%m-%d %H:%M:00")}

    def _begin(self, now: datetime) -> datetime:
        return (now - timedelta(seconds=self.seconds)).astimezone(UTC)


WINDOWS: Final = {
    window.name: window
    for window in (
        Window("1h", "Hour", 3600),
        Window("24h", "Day", 86_400),
        Window("7d", "Week", 7 * 86_400),
        Window("30d", "30 days", 30 * 86_400),
        Window("1y", "Year", 365 * 86_400),
    )
}


def window_of(given: Mapping[str, str], default: str = "24h") -> Window:
    """The window that was chosen.

    Raises:
        Trouble: there is none of that name.
    """
    name = given.get("window") or default
    if name not in WINDOWS:
        raise _unknown("window", name, WINDOWS)
    return WINDOWS[name]


def one_of(given: Mapping[str, str], name: str, known: tuple[str, ...], default: str = "") -> str:
    """One of a closed list, in whatever case it was typed, or the default; an empty text stands for all.

    Raises:
        Trouble: it is none of them.
    """
    chosen = given.get(name, default).strip()
    found = next((each for each in known if each.casefold() == chosen.casefold()), "")
    if chosen and not found:
        raise _unknown(name, chosen, known)
    return found


def check_names(given: Iterable[str]) -> None:
    """Look whether each name stands for something on some page: a filter that is misspelt would pass for one.

    Raises:
        Trouble: one does not.
    """
    for name in given:
        if name not in NAMES:
            raise _unknown("filter", name, NAMES)


def text_of(given: Mapping[str, str], name: str) -> str:
    """A name that somebody typed; empty for none.

    Raises:
        Trouble: nothing that we name is so long.
    """
    text = given.get(name, "").strip()
    if len(text) > _LONGEST_TEXT:
        raise Trouble(f"{name} is longer than {_LONGEST_TEXT} characters.", "Clear the filter.", 400)
    return text


def number_of(given: Mapping[str, str], name: str) -> int | None:
    """A whole number, or None where none was given.

    Raises:
        Trouble: it is none, or ClickHouse could not hold it.
    """
    text = given.get(name, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Trouble(f"{name} is a whole number, not {text[:40]!r}.", "Clear the filter, or correct it.", 400)
    return int(text)


def moment_of(given: Mapping[str, str], name: str) -> str:
    """A time as ClickHouse reads it, to the microsecond; empty for none.

    Raises:
        Trouble: it is no time.
    """
    text = given.get(name, "").strip()
    if not text:
        return ""
    found: datetime | None
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        found = None
    if found is None or found.year not in _YEARS:
        raise Trouble(f"{name} is a time, not {text[:40]!r}.", "Begin again at the newest episode.", 400)
    return found.strftime("%Y-%m-%d %H:%M:%S.%f")


def whole(text: str, bits: int) -> int:
    """A whole number that is a part of an address.

    Raises:
        Trouble: it is none, or ClickHouse's signed integer of so many bits could not hold it.
    """
    if text.isascii() and text.isdigit() and len(text) < 20 and (number := int(text)) < 1 << (bits - 1):
        return number
    raise Trouble(f"Nothing here has the number {text[:40]!r}.", "Pick one from the list.", 404)


def id_of(text: str) -> UUID:
    """An episode's id.

    Raises:
        Trouble: it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise Trouble(f"{text[:60]!r} is no episode's id.", "Pick one from the list of episodes.", 404) from None


def grain(first: float, last: float, episodes: float = math.inf) -> int:
    """Seconds of a bin so that data from the first to the last time, wherever in a window, fill a chart.

    Args:
        first, last: seconds since the epoch.
        episodes: how many a line shows; of few there are fewer bins, as a rate of three says nothing.
    """
    span, most = max(last - first, 0.0), min(_MOST_BINS, max(_FEWEST_BINS, episodes / _IN_A_BIN))
    return next((size for size in _BINS if span / size <= most), int(span / most) + 1)


def _unknown(name: str, chosen: str, known: Mapping[str, object] | tuple[str, ...]) -> Trouble:
    return Trouble(f"There is no {name} {chosen[:40]!r}.", f"Choose one of {', '.join(known)}.", 400)
