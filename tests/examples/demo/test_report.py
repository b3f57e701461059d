from __future__ import annotations

import json

import pytest

from examples.metaworld.demo.report import Report, broken_equalities

GOOD = {
    "episodes": {"sent": 4, "materialized": 4, "in_clickhouse": 4, "in_training_stream": 4},
    "steps": {"sent": 40, "materialized": 40},
    "interventions": {"sent": 3, "in_clickhouse": 3},
    "duplicates": 0,
    "dead_letters": 0,
    "policy_versions": {"published": 3, "activated_by_every_robot": 3},
    "success": {"base": 0.5, "final": 0.75, "evaluation_episodes": 120},
    "latency_seconds": {
        "episode_end_to_clickhouse": {"p50": 0.1, "p99": 0.2},
        "episode_end_to_learner": {"p50": 0.1, "p99": None},
        "publish_to_active": {"p50": None, "p99": None},
    },
    "seed": 1,
    "wall_seconds": 1.5,
}


def report(path: str, value: int) -> Report:
    document = json.loads(json.dumps(GOOD))
    *parents, name = path.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    part[name] = value
    return Report.model_validate(document)


def test_the_report_is_the_json_that_was_agreed_on() -> None:
    assert json.loads(Report.model_validate(GOOD).model_dump_json()) == GOOD


def test_nothing_is_broken_when_everything_arrived_once() -> None:
    assert list(broken_equalities(Report.model_validate(GOOD))) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("episodes.materialized", 3, "episodes: 4 sent, 3 materialized"),
        ("episodes.in_clickhouse", 5, "episodes: 4 sent, 5 in clickhouse"),
        ("episodes.in_training_stream", 3, "episodes: 4 sent, 3 in training stream"),
        ("steps.materialized", 39, "steps: 40 sent, 39 materialized"),
        ("interventions.in_clickhouse", 2, "interventions: 3 sent, 2 in clickhouse"),
        ("duplicates", 1, "1 duplicates"),
        ("dead_letters", 2, "2 dead letters"),
    ],
)
def test_what_does_not_add_up_is_named(path: str, value: int, said: str) -> None:
    assert list(broken_equalities(report(path, value))) == [said]
