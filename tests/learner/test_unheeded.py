from __future__ import annotations

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from infra.settings import LearnerSettings
from learner.unheeded import BY_TASK, say_unknown_tasks

TASKS = ("pick-place-v3", "push-v3")


@pytest.mark.parametrize(
    ("changes", "settings", "tasks"),
    [
        ({}, None, None),
        ({"task_weights": {"push-v3": 2.0}, "recap_positive_shares": {"pick-place-v3": 0.1}}, None, None),
        ({"task_weights": {"push": 2.0, "push-v3": 2.0}}, ["task_weights"], ["push"]),
        (
            {"task_weights": {"push": 2.0}, "recap_positive_shares": {"pickplace-v3": 0.1, "push": 0.2}},
            ["task_weights", "recap_positive_shares"],
            ["pickplace-v3", "push"],
        ),
    ],
)
def test_tasks_that_the_line_does_not_know_are_said_once(
    changes: dict[str, object], settings: list[str] | None, tasks: list[str] | None
) -> None:
    with capture_logs() as logs:
        say_unknown_tasks(LearnerSettings.model_validate(changes), TASKS)
    said = [(entry["event"], entry["settings"], entry["tasks"], entry["reason"]) for entry in logs]
    reason = "the line has no such task; it has pick-place-v3, push-v3"
    assert said == ([("settings_not_heeded", settings, tasks, reason)] if settings else [])


def test_all_settings_that_name_tasks_are_looked_at() -> None:
    fields = LearnerSettings.model_fields
    assert {name for name, field in fields.items() if str(field.annotation).startswith("dict[")} == {*BY_TASK}


def test_a_seed_that_no_generator_takes_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="seed"):
        LearnerSettings(seed=-1)
