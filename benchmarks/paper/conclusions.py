"""What came out: the paper's findings, one a line, and what is thought about those that are not found here."""

from __future__ import annotations

import math

from benchmarks.paper.effects import Effect, Results, effects
from benchmarks.paper.markdown import table
from benchmarks.paper.program import Program

# What we think, not what was tested: it stands below the numbers, and says so.
_WHY = """None of what follows was tested by a run of its own.

- **Size of the fleet.** Every fleet takes the same gradient steps at the same pace, so more robots bring more data
  and nothing else. A time to a threshold is read off a curve that has become flat, where a point of success is
  many minutes: its interval is wide, and a quotient's is wider, even where the curves differ. What tells fleets
  apart best is success averaged over the time, seed by seed (table 1a).
- **SOP against offline.** Both have the same robot-hours and gradient steps. Offline training is given the second
  half of its steps after the last hour, on all data and at no cost in time, and its versions are judged at the
  end, where that counts most; with HG-DAgger it is as high at half time as SOP is at the end. What SOP has instead
  is a fleet that works with newer policies while it is out there: it solves more alone and needs fewer human steps
  (table 2).
- **RECAP.** Nothing of it was tuned, while HG-DAgger's treatment of failed episodes was. Most of what it draws is
  called positive (see below), corrections among it that did not help: HG-DAgger leaves those out."""


def section(program: Program, done: Results) -> str:
    """The findings that there are seeds for; nothing while there are none."""
    found = effects(program, done)
    if not found:
        return ""
    header = ["the paper's finding", "paper", "here", "seeds", "verdict"]
    rows = [[one.claim, one.paper, _told(one), str(one.seeds), one.verdict] for one in found]
    return f"""## What came out

The paper's findings, with its numbers, of its robots and tasks, and ours: differences of success in points, seed
by seed, and quotients (×). *Shown* is what the 95 % interval says by itself: it lies on the paper's side of no
effect; *the opposite*, on the other side. Intervals are not corrected for the number of lines.

{table(header, rows)}

Why some are not shown, as far as we can tell. {_WHY}
"""


def _told(one: Effect) -> str:
    def say(value: float) -> str:
        if not math.isfinite(value):
            return "-" if math.isnan(value) else "∞"
        return f"{value:.1f}" if one.times else f"{100 * value:+.1f}"

    sign = "×" if one.times else ""
    if math.isnan(one.low):
        return f"{say(one.value)}{sign}"
    return f"{say(one.value)}{sign} [{say(one.low)}, {say(one.high)}]"
