"""Rows and objects against announcements: what is judged, and what is left to the next audit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consumers.audit.announced import Announcements
from consumers.audit.findings import Kind, Report, Where
from consumers.audit.objects import compare_listing, missing_objects
from consumers.audit.present import duration, moment
from consumers.audit.rows import EpisodeRow, compare_rows, missing_rows
from infra.object_store import Entry
from schemas.events import EpisodeMaterialized
from tests.consumers.audit.test_accounting import committed_cluster

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(days=2)


@pytest.fixture
def first() -> EpisodeMaterialized:
    return committed_cluster(2).training[0]


def second_of(event: EpisodeMaterialized) -> EpisodeMaterialized:
    changes = {"revision": 2, "payload_sha256": "f" * 64, "step_count": event.step_count + 1}
    uri = event.payload_uri.rsplit("/", 1)[0] + f"/2-{'f' * 64}.parquet"
    return event.model_copy(update={**changes, "payload_uri": uri})


def announced(*events: EpisodeMaterialized) -> Announcements:
    found = Announcements("s3://sop/")
    for offset, event in enumerate(events):
        assert list(found.add(event, 0, offset)) == []
    return found


def row_of(event: EpisodeMaterialized, offset: int, **changes: object) -> EpisodeRow:
    row = EpisodeRow(
        event.task, event.episode_id, event.revision, event.payload_sha256, event.step_count, 0, offset
    )
    return row._replace(**changes)  # type: ignore[arg-type]


def judge(announcements: Announcements, *rows: EpisodeRow, read: int, indexed: int) -> list[Kind]:
    found = [f.kind for f in compare_rows(announcements, rows, {0: read}, {0: indexed})]
    return found + [Kind.MISSING for _ in missing_rows(announcements, {0: indexed}, 0.0)]


def test_a_row_is_judged_by_what_the_index_has_passed(first: EpisodeMaterialized) -> None:
    second = second_of(first)
    cases = {
        "as announced": ([row_of(first, 0)], 1, []),
        "the index is behind": ([row_of(first, 0)], 1, []),
        "the index is ahead of what it committed": ([row_of(second, 1)], 1, []),
        "the index has passed revision 2": ([row_of(first, 0)], 2, [Kind.WRONG]),
        "nothing was passed": ([], 0, []),
        "passed, and not there": ([], 1, [Kind.MISSING]),
        "newer than this audit": ([row_of(first, 9, revision=3)], 2, []),
        "a revision that nobody announced": ([row_of(first, 1, revision=3)], 2, [Kind.WRONG]),
        "other steps": ([row_of(second, 1, step_count=99)], 2, [Kind.WRONG]),
        "other content": ([row_of(second, 1, payload_sha256="0" * 64)], 2, [Kind.WRONG]),
        "from the object store alone": ([row_of(second, -1)], 2, []),
        "from the object store alone, of a revision that nobody announced": (
            [row_of(second, -1, revision=3)],
            2,
            [Kind.ORPHANED],
        ),
        "twice": ([row_of(second, 1), row_of(second, 1)], 2, [Kind.DOUBLED]),
        "under another task": ([row_of(second, 1), row_of(second, 1, task="pull")], 2, [Kind.ORPHANED]),
        "of an episode that nobody announced": (
            [row_of(second, 1), row_of(second, 1, episode_id="other")],
            2,
            [Kind.ORPHANED],
        ),
        "of an episode that is newer than this audit": (
            [row_of(second, 1), row_of(second, 2, episode_id="other")],
            2,
            [],
        ),
    }
    for name, (rows, indexed, expected) in cases.items():
        assert judge(announced(first, second), *rows, read=2, indexed=indexed) == expected, name


def test_objects_are_judged_by_the_newest_revision_and_by_their_age(first: EpisodeMaterialized) -> None:
    second = second_of(first)
    found = announced(first, second)
    key = second.payload_uri.removeprefix("s3://sop/")
    folder = key.rsplit("/", 1)[0]
    entries = [
        Entry(first.payload_uri.removeprefix("s3://sop/"), 1, OLD),
        Entry(key, second.payload_bytes + 1, OLD),
        Entry(f"{folder}/3-{'a' * 64}.parquet", 5, OLD),
        Entry(f"{folder}/3-{'b' * 64}.parquet", 5, NOW),
        Entry(f"{folder}/strange", 5, OLD),
    ]
    judged = [(f.kind, f.key) for f in compare_listing(found, entries, NOW - timedelta(days=1))]
    assert judged == [(Kind.WRONG, key), (Kind.ORPHANED, entries[2].key), (Kind.ORPHANED, entries[4].key)]
    assert list(missing_objects(found, 0.0)) == []
    assert [e.episode_id for e in missing_objects(announced(first), 0.0)] == [first.episode_id]
    assert list(missing_objects(announced(first), 1e12)) == [], "announced before what is judged"


def test_a_report_counts_everything_and_keeps_a_bounded_list(
    first: EpisodeMaterialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.audit.findings.LISTED", 2)
    report = Report()
    rows = [row_of(first, 0, episode_id=f"other-{n}") for n in range(5)]
    for finding in compare_rows(announced(first), rows, {0: 9}, {0: 9}):
        report.add(finding)
    assert (len(report.findings), report.left, report.clean) == (2, 5, False)
    for finding in report.findings:
        finding.mended = "deleted"
    assert report.left == 3
    assert report.of(Where.ROWS, Kind.ORPHANED) == []
    assert report.as_json()["counts"] == {"rows: orphaned": 5}


def test_times_are_durations_or_dates() -> None:
    assert [duration(text) for text in ("90s", "30m", "24h", "7d")] == [
        timedelta(seconds=90),
        timedelta(minutes=30),
        timedelta(days=1),
        timedelta(days=7),
    ]
    assert moment("24h", NOW) == NOW - timedelta(days=1)
    assert moment("2026-01-31T08:00", NOW) == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert moment("2026-01-31T08:00+02:00", NOW) == datetime(2026, 1, 31, 6, tzinfo=UTC)
    for text in ("", "24", "h", "-1h", "1.5h", "soon"):
        with pytest.raises(ValueError, match="duration"):
            moment(text, NOW)
