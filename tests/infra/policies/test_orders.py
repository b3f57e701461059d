"""What an operator orders of a line that has nothing to roll out."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from infra.policies import orders, rollout
from infra.policies.errors import RolloutRefused
from infra.policies.log import Control
from infra.policies.present import show_rollout, show_versions
from infra.policies.rollout import Transition
from tests.producers.fakes import announcement, rolled_out

ORDERS: dict[str, Callable[[Control, str], Transition]] = {
    "hold": orders.hold,
    "hold a version": lambda control, line: orders.hold(control, line, 3),
    "promote": orders.promote,
    "promote a version": lambda control, line: orders.promote(control, line, 3),
    "rollback": orders.rollback,
    "rollback to a version": lambda control, line: orders.rollback(control, line, 3),
    "canary": lambda control, line: orders.canary(control, line, 3, fraction=0.5),
    "pin": lambda control, line: rollout.pin(line, "arm-1", orders.published(control, line, 3)),
}


def shown(show: Callable[[str, Control, Console], None], line: str, control: Control) -> str:
    text = StringIO()
    show(line, control, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize("name", ORDERS)
def test_a_line_without_versions_is_named_as_such_with_what_to_do(name: str) -> None:
    control = Control(versions={"demo": {1: announcement(1, b"w", policy="demo")}})
    with pytest.raises(RolloutRefused) as refused:
        ORDERS[name](control, "demmo")
    assert str(refused.value) == (
        "the line demmo has no versions; known lines: demo. Name the one you mean (--policy), or start its "
        "learner (SOP_LEARNER__POLICY=demmo sop learn), which publishes them"
    )
    with pytest.raises(RolloutRefused, match="the line demo has no versions; nor has any other line"):
        ORDERS[name](Control(), "demo")


@pytest.mark.parametrize("name", ORDERS)
def test_a_line_of_which_no_version_is_believed_says_why(name: str) -> None:
    why = "it is signed by key ab, which SOP_POLICIES__LEARNER_KEYS lacks (has none)"
    control = Control(
        refused={f"line/{number}": why for number in range(1, 21)} | {"line-2/1": "it is not signed"}
    )
    with pytest.raises(RolloutRefused) as refused:
        ORDERS[name](control, "line")
    assert str(refused.value) == f"the line line has no version that is believed (20 are not): line/20: {why}"


def test_what_is_held_is_rolled_back_though_no_version_is_believed() -> None:
    held = rolled_out(rollout.hold("line", 1), rollout.promote("line", 2))
    control = Control(rollouts={"line": held}, refused={"line/1": "it is not signed"})
    state = orders.rollback(control, "line")(held, rollout.Change("ada", "worse", held.written_at))
    assert state.current == 1


@pytest.mark.parametrize("show", [show_versions, show_rollout])
def test_a_line_without_versions_is_shown_as_such(show: Callable[[str, Control, Console], None]) -> None:
    assert "the line line has no versions; nor has any other line" in shown(show, "line", Control())


def test_versions_that_are_refused_for_one_cause_are_shown_in_a_line() -> None:
    refused = {f"line/{number}": "it is not signed" for number in range(1, 21)}
    control = Control(versions={"line": {21: announcement(21, b"w")}}, refused=refused)
    assert "not believed: line/20 and 19 more: it is not signed\n" in shown(show_versions, "line", control)
