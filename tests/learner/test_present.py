from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from learner.present import bar, show_replayed, verdict
from learner.reproduce import Replayed

DIFFERENT = Replayed(
    version=2, published="a", trained="b", there=("old", "new"), here="new", difference=1e-4, updates=7
)


def test_each_kind_of_machine_on_the_way_that_is_another_is_shown() -> None:
    out = Console(file=io.StringIO(), width=200)
    show_replayed(DIFFERENT, "line", out)
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert [line.split() for line in shown.splitlines() if "trained on" in line] == [["trained", "on", "old"]]
    assert "this machine  new" in shown
    assert DIFFERENT.good
    assert verdict(DIFFERENT).startswith("other hardware")


@pytest.mark.parametrize("stage", ["fetching", "admitting", "fitting", "training"])
def test_a_bar_says_how_long_a_stage_takes_yet(stage: str) -> None:
    out = Console(file=io.StringIO(), width=100, force_terminal=True, record=True)
    with bar(out) as told:
        told("beginning", 0, None)
        for done in range(1, 6):
            told(stage, done, 10)
    last = out.export_text().splitlines()[-1]
    assert f"{stage} " in last
    assert "5/10" in last
    assert re.search(r"\d:\d\d:\d\d", last), last


def test_a_stage_that_goes_further_than_was_said_at_first_is_shown_so() -> None:
    out = Console(file=io.StringIO(), width=100, force_terminal=True, record=True)
    with bar(out) as told:
        told("admitting", 1, 10)
        told("admitting", 1, 20)
    assert " 1/20" in out.export_text().splitlines()[-1]
