from __future__ import annotations

import io

from rich.console import Console

from learner.present import show_replayed, verdict
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
