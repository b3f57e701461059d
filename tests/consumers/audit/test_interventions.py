"""Rows of interventions against announcements: what is missing, what nobody announced, what is left alone."""

from __future__ import annotations

import pytest

from consumers.audit.announced import Announcements
from consumers.audit.findings import Kind, Where
from consumers.audit.interventions import InterventionRows, Interventions
from schemas.events import EpisodeMaterialized, InterventionSpan
from tests.consumers.audit.test_accounting import committed_cluster

A, B, C = "a", "b", "c"
LIKE = committed_cluster(2).training[0]


def event(revision: int, *interventions: str) -> EpisodeMaterialized:
    """An announcement that names these interventions."""
    spans = tuple(
        InterventionSpan(intervention_id=i, operator="ada", reason="", first_step=0, began_at=LIKE.started_at)
        for i in interventions
    )
    return LIKE.model_copy(update={"revision": revision, "interventions": spans})


def judge(
    *rows: tuple[str, int],
    read: int = 2,
    indexed: int = 2,
    episode: str = LIKE.episode_id,
    newer: frozenset[str] = frozenset(),
    since: float = 0.0,
) -> list[tuple[Kind, str]]:
    """What is said of rows, against revision 1 with A, and revision 2 with A and B, as far as they were read."""
    announcements = Announcements("s3://sop/")
    for offset, announced in enumerate([event(1, A), event(2, A, B)][:read]):
        assert list(announcements.add(announced, 0, offset)) == []
    interventions = Interventions(announcements, {0: indexed})
    interventions.add([InterventionRows(episode, rows)] if rows else [])
    found = list(interventions.findings(newer, since))
    assert all(finding.where is Where.INTERVENTION_ROWS for finding in found)
    return sorted((finding.kind, finding.name.split()[1]) for finding in found)


@pytest.mark.parametrize(
    ("rows", "indexed", "expected"),
    [
        ([(A, 2), (B, 2)], 2, []),
        ([], 0, []),
        ([], 1, [(Kind.MISSING, A)]),
        ([], 2, [(Kind.MISSING, A), (Kind.MISSING, B)]),
        ([(A, 2)], 2, [(Kind.MISSING, B)]),
        ([(A, 1)], 1, []),
        ([(A, 2), (B, 2)], 1, []),
        ([(A, 1), (B, 2)], 2, [(Kind.WRONG, A)]),
        ([(A, 2), (B, 2), (C, 2)], 2, [(Kind.ORPHANED, C)]),
        ([(A, 2), (B, 9)], 2, [(Kind.WRONG, B)]),
        ([(A, 2), (B, 1)], 2, [(Kind.WRONG, B)]),
    ],
)
def test_rows_are_compared_with_the_newest_announcement_that_the_index_has_passed(
    rows: list[tuple[str, int]], indexed: int, expected: list[tuple[Kind, str]]
) -> None:
    assert judge(*rows, indexed=indexed) == expected


def test_rows_of_an_episode_that_nobody_announced_are_orphans() -> None:
    missing = [(Kind.MISSING, A), (Kind.MISSING, B)]
    assert judge((A, 1), (C, 1), episode="other") == [*missing, (Kind.ORPHANED, A), (Kind.ORPHANED, C)]
    assert judge((A, 1), episode="other", newer=frozenset({"other"})) == missing


def test_a_revision_that_is_newer_than_the_audit_is_left_to_the_next_one() -> None:
    assert judge((A, 2), (B, 2), read=1, indexed=1, newer=frozenset({LIKE.episode_id})) == []
    assert judge((A, 2), (B, 2), read=1, indexed=1) == [(Kind.ORPHANED, B), (Kind.WRONG, A)]


def test_nothing_is_missing_that_was_announced_before_what_is_judged() -> None:
    assert judge(since=1e12) == judge((A, 2), since=1e12) == []
    assert judge((A, 2), (B, 2), (C, 2), since=1e12) == [(Kind.ORPHANED, C)]
