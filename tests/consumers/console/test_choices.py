"""What an address asks for is checked before any query sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.console.asking import Trouble
from consumers.console.charts import Line, chart
from consumers.console.choices import (
    SOURCES,
    WINDOWS,
    grain,
    id_of,
    moment_of,
    number_of,
    one_of,
    text_of,
    whole,
    window_of,
)
from consumers.console.formatting import DASH, duration, milliseconds, moment, number, share, size, time_of
from consumers.console.wilson import interval

NOW = datetime(2026, 5, 1, 12, 34, 56, tzinfo=UTC)


def test_a_window_begins_at_a_whole_hour_for_views_by_hour_and_at_a_minute_for_episodes() -> None:
    assert window_of({}).name == "24h"
    assert WINDOWS["1h"].since(NOW) == "2026-05-01 11:00:00"
    assert WINDOWS["1h"].bound(NOW) == {"since": "2026-05-01 11:00:00", "begin": "2026-05-01 11:34:00"}
    with pytest.raises(Trouble, match="no window") as told:
        window_of({"window": "1; DROP"})
    assert told.value.status == 400
    assert "24h" in told.value.advice


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "1e3", "٣", "9" * 19, "1 OR 1"])
def test_what_is_no_whole_number_is_told(text: str) -> None:
    with pytest.raises(Trouble, match="whole number"):
        number_of({"version": text}, "version")


def test_numbers_names_times_and_ids() -> None:
    assert number_of({"version": " 12 "}, "version") == 12
    assert number_of({"version": ""}, "version") is None
    assert one_of({}, "source", SOURCES, "ONLINE") == "ONLINE"
    assert one_of({"source": ""}, "source", SOURCES, "ONLINE") == ""
    assert one_of({"source": "oNline "}, "source", SOURCES) == "ONLINE"
    with pytest.raises(Trouble, match="no source"):
        one_of({"source": "'"}, "source", SOURCES)
    with pytest.raises(Trouble, match="longer than"):
        text_of({"task": "x" * 201}, "task")
    assert moment_of({"before": "2026-05-01T02:00:00.000001+02:00"}, "before") == "2026-05-01 00:00:00.000001"
    for text in ("now()", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-02-03", "2300-01-01"):
        with pytest.raises(Trouble, match="is a time"):
            moment_of({"before": text}, "before")
    with pytest.raises(Trouble) as told:
        id_of("nonsense")
    assert told.value.status == 404


@pytest.mark.parametrize("text", [str(2**63), "9" * 5000, "-1", "x", "", "٣"])
def test_a_number_that_nothing_can_have_is_nowhere(text: str) -> None:
    assert whole(str(2**63 - 1), 64) == 2**63 - 1
    assert whole("12", 32) == 12
    for bits in (32, 64):
        with pytest.raises(Trouble) as told:
            whole(text, bits)
        assert told.value.status == 404
    with pytest.raises(Trouble):
        whole(str(2**31), 32)


@given(st.floats(0, 2e9), st.floats(0, 4e8))
def test_data_fill_a_chart_whatever_their_span(first: float, span: float) -> None:
    assert span / grain(first, first + span) <= 41
    assert grain(first, first) == 1
    assert grain(first, first + span, 24) >= grain(first, first + span)


@given(st.integers(0, 2_000_000_000), st.integers(0, 2_000_000))
def test_begin_middle_and_end_of_an_axis_of_time_are_told_apart(first: int, span: int) -> None:
    size = grain(first, first + span)
    left, right = first // size * size, (first + span) // size * size
    ticks = chart("a", "", [left, right], [Line("a", [0.0, 1.0])], x_title="t", x_label=time_of(span)).x_ticks
    assert len(set(ticks)) == len(ticks)


def test_few_episodes_make_few_bins() -> None:
    assert [grain(0, 21_600, episodes) for episodes in (1, 120, 1200)] == [3600, 3600, 600]


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_rate(successes: int, failures: int) -> None:
    judged = successes + failures
    found = interval(successes, judged)
    if not judged:
        assert found is None
        return
    assert found is not None
    assert -1e-12 <= found[0] <= successes / judged + 1e-12
    assert successes / judged - 1e-12 <= found[1] <= 1 + 1e-12


def test_values_are_written_for_people() -> None:
    assert [duration(v) for v in (None, -0.0001, 0.25, 1.25, 90, 7200, 200_000)] == [
        DASH,
        "0 ms",
        "250 ms",
        "1.2 s",
        "1.5 min",
        "2.0 h",
        "2.3 d",
    ]
    assert milliseconds(1500) == "1.5 s"
    assert [number(1234567), number(None), number(float("nan"))] == ["1,234,567", DASH, DASH]
    assert [share(0.1234), share(None)] == ["12.3 %", DASH]
    assert [size(v) for v in (None, 12, 41_079, 3e9, 4e15)] == [DASH, "12 B", "41.1 kB", "3.0 GB", "4000.0 TB"]
    assert moment(datetime(2026, 5, 1, 1, 2, 3, 4)) == "2026-05-01 01:02:03"
