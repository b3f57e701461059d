from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from learner.train import gather_demonstrations


def test_while_demonstrations_are_waited_for_the_other_ranks_hear_that_the_first_one_lives() -> None:
    told: list[str] = []
    intake = SimpleNamespace(waiting={}, poll=lambda _seconds: told.append("looked"))
    gathered: Any = SimpleNamespace(take=lambda _intake, waiting: len(waiting))

    def keep_on() -> None:
        told.append("said")
        if len(told) == 7:
            intake.waiting["episode"] = object()

    line: Any = SimpleNamespace(intake=intake, keep_on=keep_on)
    gather_demonstrations(line, gathered, 1)
    assert told == ["said", "looked"] * 4
