"""Numbers and tables as the document has them. Pure."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

from benchmarks.paper import stats

_WIDTH = 115


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(mean: stats.Mean) -> str:
    """A share over seeds."""
    return f"{100 * mean.value:.1f} %" + ("" if math.isnan(mean.half) else f" ± {100 * mean.half:.1f}")


def sampled(successes: int, episodes: int) -> str:
    """A share of one version's episodes, with what their number leaves open."""
    low, high = stats.proportion(successes, episodes)
    return f"{100 * successes / episodes:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def points(mean: stats.Mean) -> str:
    """A difference of shares over seeds."""
    return f"{100 * mean.value:+.1f}" + ("" if math.isnan(mean.half) else f" ± {100 * mean.half:.1f}")


def number(mean: stats.Mean) -> str:
    """A count over seeds."""
    return f"{mean.value:.0f}" + ("" if math.isnan(mean.half) else f" ± {mean.half:.0f}")


def interval(found: stats.Interval, never: str) -> str:
    """An estimate and its bounds; `never` for what did not happen."""

    def say(value: float) -> str:
        if math.isnan(value):
            return "-"
        return never if value == stats.NEVER else f"{value:.0f}" if value >= 10 else f"{value:.1f}"

    if math.isnan(found.low):
        return say(found.value)
    return f"{say(found.value)} [{say(found.low)}, {say(found.high)}]"


def flow(text: str) -> str:
    """Prose in lines of one length; headings, tables and pictures as they are."""
    blocks = []
    for block in text.split("\n\n"):
        if block.lstrip("\n").startswith(("#", "|", "!")):
            blocks.append(block.strip("\n"))
            continue
        items = [" ".join(item.split()) for item in re.split(r"\n(?=- )", block.strip("\n"))]
        blocks.append("\n".join(_filled(item) for item in items if item))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _filled(item: str) -> str:
    indent = "  " if item.startswith("- ") else ""
    return textwrap.fill(item, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
