"""What a chart's paths, ticks and words are, for any numbers."""

from __future__ import annotations

import itertools
import json
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from consumers.console.charts import HEIGHT, WIDTH, Line, Shade, chart, nice, percent, plain, thinned

numbers = st.floats(-1e12, 1e12, allow_nan=False)


@given(numbers, numbers)
def test_ticks_are_even_and_hold_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = nice(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-6)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert 2 <= len(ticks) <= 7
    assert all(math.isclose(step, steps[0], rel_tol=1e-3, abs_tol=slack) for step in steps)


@given(st.lists(st.one_of(st.none(), numbers), max_size=3000))
def test_no_peak_is_lost_by_thinning(y: list[float | None]) -> None:
    kept = thinned(y)
    assert kept == sorted(set(kept))
    assert len(kept) <= 402
    known = [value for value in y if value is not None]
    if known:
        drawn = [y[place] for place in kept if y[place] is not None]
        assert (max(known), min(known)) == (max(drawn), min(drawn))  # type: ignore[type-var]


@given(st.lists(st.one_of(st.none(), numbers), min_size=1, max_size=60))
def test_a_line_stays_inside_the_drawing(y: list[float | None]) -> None:
    made = chart("a", "", [float(n) for n in range(len(y))], [Line("a", y)], x_title="x")
    for stroke in made.strokes:
        for x, height in re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", stroke.path):
            assert -0.01 <= float(x) <= WIDTH + 0.01
            assert -0.01 <= float(height) <= HEIGHT + 0.01
    assert made.empty == (not any(value is not None for value in y))


def test_a_gap_lifts_the_pen() -> None:
    made = chart("a", "", [0.0, 1.0, 2.0, 3.0], [Line("a", [0.0, None, 1.0, 1.0])], x_title="x")
    assert made.strokes[0].path == "M0 100M666.67 0L1000 0"


def test_an_interval_is_a_band_with_whiskers_and_told_in_words() -> None:
    line = Line("rate", [0.5, 0.75], [0.4, 0.7], [0.6, 0.8])
    made = chart("a", "success", [1, 2], [line], x_title="version", y_label=percent, y_range=(0, 1), marks=True)
    assert [stroke.look for stroke in made.strokes] == ["band", "whisker", "main", "main dot"]
    assert made.y_ticks[0] == "100 %"
    assert made.y_ticks[-1] == "0 %"
    assert json.loads(made.points)["lines"][0]["y"] == ["50 % (40 % to 60 %)", "75 % (70 % to 80 %)"]
    assert made.summary == "a (success) over version, from 1 to 2: lowest 50 %, highest 75 %, last 75 %"


def test_shades_and_a_lone_point() -> None:
    made = chart("a", "", [0.0, 10.0], [Line("a", [1.0, 2.0])], x_title="x", shades=[Shade(2, 4, "human")])
    assert made.shades == ((200.0, 200.0, "human"),)
    lone = chart("a", "", [3.0], [Line("a", [1.0])], x_title="x")
    assert lone.x_ticks == ("3",)
    assert lone.strokes[-1].look == "main dot"
    assert chart("a", "", [], [], x_title="x").empty


def test_numbers_have_the_digits_that_a_reader_needs() -> None:
    assert [plain(v) for v in (0, 1234.5, 0.12345, 0.00001)] == ["0", "1,234", "0.1235", "1.0e-05"]
    assert [percent(v) for v in (0, 0.031, 0.5)] == ["0 %", "3.1 %", "50 %"]
