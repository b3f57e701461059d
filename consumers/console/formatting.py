"""How pages write values. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

DASH = "–"  # noqa: RUF001 - a dash is meant


def number(value: float | int | None, digits: int = 0) -> str:
    """A number with thousands apart; a dash for none."""
    return DASH if value is None or value != value else f"{value:,.{digits}f}"  # noqa: PLR0124 - NaN is no number


def share(value: float | None) -> str:
    """A share as percent; a dash for none."""
    return DASH if value is None or value != value else f"{100 * value:.1f} %"  # noqa: PLR0124


def milliseconds(value: float | None) -> str:
    """A duration that was measured in milliseconds."""
    return DASH if value is None else duration(value / 1000)


def duration(seconds: float | None) -> str:
    """A duration with the unit that suits it."""
    if seconds is None:
        return DASH
    size = abs(seconds)
    if size < 0.0005:
        return "0 ms"
    for limit, divisor, unit, digits in (
        (0.9995, 0.001, "ms", 0),
        (59.95, 1.0, "s", 1),
        (3570.0, 60.0, "min", 1),
        (129_600.0, 3600.0, "h", 1),
    ):
        if size < limit:
            return f"{seconds / divisor:.{digits}f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def size(value: float | None) -> str:
    """Bytes."""
    if value is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(value: datetime | None) -> str:
    """A time, UTC, to the second."""
    return DASH if value is None else aware(value).strftime("%Y-%m-%d %H:%M:%S")


def iso(value: datetime | None) -> str:
    """A time for programs."""
    return "" if value is None else aware(value).isoformat()


def time_of(span: float) -> Callable[[float], str]:
    """What writes times, UTC, of seconds since the epoch, on an axis of so many seconds.

    Begin, middle and end of an axis are told apart: of a few minutes by seconds, of about a day or more by dates.
    """
    form = "%H:%M:%S" if span < 600 else "%H:%M" if span < 64_800 else "%b %d %H:%M"
    return lambda seconds: datetime.fromtimestamp(seconds, UTC).strftime(form)


def aware(value: datetime) -> datetime:
    """A time with its zone; ClickHouse's columns are UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


FILTERS = {
    "number": number,
    "share": share,
    "milliseconds": milliseconds,
    "duration": duration,
    "size": size,
    "moment": moment,
    "iso": iso,
}
"""By the names that templates use."""
