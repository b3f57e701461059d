"""Charts as plain SVG paths. Pure: numbers in, what a template draws out.

The drawing area is 1000 × 100 and is stretched by the page; axes and labels are text of the page, so that they are
as large on a telephone as on a desk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from consumers.console.formatting import DASH

WIDTH, HEIGHT = 1000.0, 100.0
_MOST_POINTS = 400

Numbers = Sequence[float | None]
Label = Callable[[float], str]
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Line:
    """One series. `low` and `high`: ends of an interval. look: main, soft, or dashed."""

    name: str
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    look: str = "main"


@dataclass(frozen=True, slots=True)
class Shade:
    """A stretch of the x axis that means something, such as a human at the controls."""

    first: float
    last: float
    label: str


@dataclass(frozen=True, slots=True)
class Stroke:
    """A path and how it looks."""

    look: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws. Ticks are evenly spaced, from the left, and from the top.

    points: what the reader's pointer is told, as JSON: where each x lies (0 to 1), its label, values of each line.
    """

    title: str
    unit: str
    x_title: str
    strokes: tuple[Stroke, ...]
    shades: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    grid: tuple[float, ...]
    points: str
    summary: str
    legend: tuple[tuple[str, str], ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.strokes


def plain(value: float) -> str:
    """A number with as many digits as a reader needs."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.001 else f"{value:.1e}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.0f} %" if abs(value) >= 0.1 or value == 0 else f"{100 * value:.1f} %"


def nice(low: float, high: float, steps: int = 4) -> tuple[float, ...]:
    """Evenly spaced round numbers that hold the range, ascending; at most `steps` + 2 of them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return (0.0, 1.0)
    if high - low <= max(abs(low), abs(high)) * 1e-9:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    rough = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


def thinned(y: Numbers, most: int = _MOST_POINTS) -> list[int]:
    """Places of the points that are drawn: of each stretch the lowest and the highest, so that no peak is lost."""
    count = len(y)
    if count <= most:
        return list(range(count))
    width = 2 * count / most
    kept: set[int] = {0, count - 1}
    for number in range(most // 2):
        places = [i for i in range(int(number * width), min(count, int((number + 1) * width))) if y[i] is not None]
        if places:
            kept |= {min(places, key=lambda i: y[i] or 0.0), max(places, key=lambda i: y[i] or 0.0)}
    return sorted(kept)


def chart(
    title: str,
    unit: str,
    x: Sequence[float],
    lines: Sequence[Line],
    *,
    x_title: str,
    x_label: Label = plain,
    y_label: Label = plain,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    shades: Sequence[Shade] = (),
    marks: bool = False,
    steps: int = 4,
) -> Chart:
    """Draw lines over one axis.

    Args:
        title: what it shows. unit: of the y axis.
        x: places, ascending; the same for all lines.
        lines: their values; None is a gap.
        x_title: what the x axis is.
        x_label, y_label: a value in words.
        y_range: of the axis; by default what holds all values.
        x_range: of the axis; by default from the first to the last place.
        shades: stretches of the x axis.
        marks: whether points are marked; a lone point always is.
        steps: about how many steps the y axis has.
    """
    values = [v for line in lines for part in (line.y, line.low, line.high) for v in part if v is not None]
    if not x or not values:
        return Chart(title, unit, x_title, (), (), (), (), (), "{}", f"{title}: no data")
    ticks = nice(*(y_range or (min(values), max(values))), steps)
    left, right = x_range or (x[0], x[-1])
    at = _scale(left, right, WIDTH)
    height = _scale(ticks[0], ticks[-1], HEIGHT)

    strokes: list[Stroke] = []
    for line in lines:
        if line.low and line.high:
            strokes.append(Stroke("band", _band(x, line, at, height)))
            if marks or len(x) == 1:
                strokes.append(Stroke("whisker", _whiskers(x, line, at, height)))
    for line in lines:
        kept = thinned(line.y)
        strokes.append(Stroke(line.look, _path([x[i] for i in kept], [line.y[i] for i in kept], at, height)))
        if marks or len(x) == 1:
            strokes.append(Stroke(f"{line.look} dot", _dots(x, line.y, at, height)))
    main = next((line for line in lines if line.look == "main"), lines[0])
    known = [v for v in main.y if v is not None]
    return Chart(
        title=title,
        unit=unit,
        x_title=x_title,
        strokes=tuple(stroke for stroke in strokes if stroke.path),
        shades=tuple((at(s.first), max(at(s.last) - at(s.first), 1.0), s.label) for s in shades),
        x_ticks=_x_ticks(left, right, x_label),
        y_ticks=tuple(y_label(tick) for tick in reversed(ticks)),
        grid=tuple(round(HEIGHT - height(tick), 2) for tick in ticks),
        points=_points(x, lines, at, x_label, y_label),
        summary=_summary(f"{title}{f' ({unit})' if unit else ''} over {x_title}", x, known, x_label, y_label),
        legend=tuple((line.look, line.name) for line in lines) if len(lines) > 1 else (),
    )


def _summary(what: str, x: Sequence[float], known: Sequence[float], x_label: Label, y_label: Label) -> str:
    if not known:
        return f"{what}: no value"
    return (
        f"{what}, from {x_label(x[0])} to {x_label(x[-1])}: lowest {y_label(min(known))}, "
        f"highest {y_label(max(known))}, last {y_label(known[-1])}"
    )


def _scale(low: float, high: float, size: float) -> Scale:
    if high <= low:
        return lambda _value: size / 2
    return lambda value: round(size * (value - low) / (high - low), 2)


def _path(x: Sequence[float], y: Numbers, at: Scale, height: Scale) -> str:
    parts: list[str] = []
    pen = "M"
    for place, value in zip(x, y, strict=True):
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{at(place):g} {HEIGHT - height(value):g}")
        pen = "L"
    return "".join(parts)


def _dots(x: Sequence[float], y: Numbers, at: Scale, height: Scale) -> str:
    """Strokes of no length: with round ends they are dots, however the drawing is stretched."""
    return "".join(
        f"M{at(place):g} {HEIGHT - height(value):g}h.01"
        for place, value in zip(x, y, strict=True)
        if value is not None
    )


def _whiskers(x: Sequence[float], line: Line, at: Scale, height: Scale) -> str:
    return "".join(
        f"M{at(place):g} {HEIGHT - height(low):g}V{HEIGHT - height(high):g}"
        for place, low, high in zip(x, line.low, line.high, strict=True)
        if low is not None and high is not None
    )


def _band(x: Sequence[float], line: Line, at: Scale, height: Scale) -> str:
    there = [
        (at(place), HEIGHT - height(low), HEIGHT - height(high))
        for place, low, high in zip(x, line.low, line.high, strict=True)
        if low is not None and high is not None
    ]
    if len(there) < 2:
        return ""
    upper = "L".join(f"{place:g} {high:g}" for place, _, high in there)
    lower = "L".join(f"{place:g} {low:g}" for place, low, _ in reversed(there))
    return f"M{upper}L{lower}Z"


def _x_ticks(left: float, right: float, label: Label) -> tuple[str, ...]:
    if right <= left:
        return (label(left),)
    middle = (left + right) / 2
    whole = all(float(end).is_integer() for end in (left, right)) and right - left < 10_000
    if whole and not middle.is_integer():
        return (label(left), label(right))
    return (label(left), label(middle), label(right))


def _points(x: Sequence[float], lines: Sequence[Line], at: Scale, x_label: Label, y_label: Label) -> str:
    kept = thinned((next((line for line in lines if line.look == "main"), lines[0])).y)

    def told(line: Line, place: int) -> str:
        value = line.y[place]
        if value is None:
            return DASH
        ends = [end[place] for end in (line.low, line.high) if end]
        if len(ends) < 2 or ends[0] is None or ends[1] is None:
            return y_label(value)
        return f"{y_label(value)} ({y_label(ends[0])} to {y_label(ends[1])})"

    found = {
        "at": [round(at(x[i]) / WIDTH, 4) for i in kept],
        "x": [x_label(x[i]) for i in kept],
        "lines": [{"name": line.name, "y": [told(line, i) for i in kept]} for line in lines],
    }
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)
