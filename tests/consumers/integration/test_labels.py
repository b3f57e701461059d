"""From `sop episodes label` to views, audit and rebuilt tables, on real servers and beside kills."""

from __future__ import annotations

import re

from typer.testing import CliRunner, Result

from consumers.audit.findings import Kind, Where
from consumers.audit.reconcile import Options, reconcile
from consumers.audit.reindex import reindex_from_objects, reindex_from_stream
from consumers.dead_letters import headers
from infra.clickhouse.client import connect
from schemas.topics import EPISODE_LABELS
from sop import app
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.consumers.robots import Robot, label, uuid7

KNOWN = "SELECT count() FROM episodes"
STATE = (
    "SELECT toString(episode_id), revision, success, recorded_success, excluded, labels.author, labels.reason, "
    "labels.labelled_at, payload_sha256 FROM episodes ORDER BY episode_id"
)


def sop(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def say(*arguments: str) -> str:
    """Label from the command line; the label's id."""
    result = sop("episodes", "label", *arguments)
    assert result.exit_code == 0, result.output
    found = re.search(r"label (\S+) is on its way", result.output)
    assert found is not None
    return found[1]


def test_a_label_is_honoured_by_stream_views_audit_and_every_way_to_rebuild_them(pipeline: Pipeline) -> None:
    member, index = pipeline.start("materialize", SOP_MATERIALIZER__EPISODE_TIMEOUT="2"), pipeline.start("index")
    episodes = [Robot(f"labelled-{n}").episode(6, intervene_at=2) for n in range(4)]
    for events in episodes:
        pipeline.send(events)
    wait_until(lambda: pipeline.query(KNOWN) == [(4,)], "indexed")
    first, second, *_ = (events[0].episode_id for events in episodes)
    outcomes = "SELECT sum(episodes), sum(successes) FROM success_by_task"
    assert pipeline.query(outcomes) == [(4, 4)]

    say(first, "--success", "false", "--reason", "the goal was missed", "--author", "ann")
    pipeline.kill(member)
    member = pipeline.start("materialize", SOP_MATERIALIZER__EPISODE_TIMEOUT="2")
    say(second, "--exclude", "--reason", "camera was covered", "--author", "bob")
    wait_until(lambda: pipeline.query(outcomes) == [(3, 2)], "views go by the labels")
    say(second, "--include", "--success", "unknown", "--reason", "not that bad", "--author", "ann")
    wait_until(lambda: pipeline.newest()[second].revision == 3, "a later label overrules")
    unknown = label(uuid7(), robot_id="labelled-0", excluded=True)
    pipeline.send([unknown])
    wait_until(lambda: len(pipeline.dead_letters()) == 1, "a label of nothing is a dead letter")
    (letter,) = pipeline.dead_letters()
    assert (headers(letter)["topic"], headers(letter)["reason"]) == (EPISODE_LABELS, "unknown_episode")
    states = (
        "SELECT groupArray((author, excludes, counts)) FROM (SELECT * FROM episode_labels ORDER BY labelled_at)"
    )
    expected = [("ann", None, True), ("bob", True, False), ("ann", False, True)]
    wait_until(lambda: pipeline.query(states) == [(expected,)], "labels can be asked for, with who and why")
    wait_until(lambda: len(pipeline.query("SELECT 1 FROM dead_letters")) == 1, "the dead letter is indexed")
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0

    report = reconcile(pipeline.settings, Options(deep=True))
    assert [(f.name, f.text) for f in report.findings] == []
    assert report.checked["labels"] == 4
    pipeline.objects.delete(pipeline.objects.key(pipeline.newest()[second].payload_uri))
    mended = reconcile(pipeline.settings, Options(repair=True))
    assert [(f.where, f.kind, f.mended is not None) for f in mended.findings] == [
        (Where.OBJECTS, Kind.MISSING, True)
    ]

    before = pipeline.query(STATE)
    for rebuild in (reindex_from_stream, reindex_from_objects):
        writer = connect(pipeline.settings.clickhouse)
        writer.command("TRUNCATE TABLE raw_episodes")
        assert pipeline.query(STATE) == []
        rebuild(pipeline.settings)
        assert pipeline.query(STATE) == before, rebuild.__name__
        writer.close()


def test_a_label_that_says_nothing_or_of_no_episode_is_wrong_use_or_refused(pipeline: Pipeline) -> None:
    nobody = uuid7()
    nothing = sop("episodes", "label", nobody, "--reason", "x")
    assert (nothing.exit_code, "nothing to say" in nothing.output) == (2, True)
    assert sop("episodes", "label", nobody, "--exclude").exit_code == 2, "a reason is needed"
    assert sop("episodes", "label", nobody, "--exclude", "--reason", " ").exit_code == 2
    missing = sop("episodes", "label", nobody, "--exclude", "--reason", "x")
    assert (missing.exit_code, f"no episode {nobody} in ClickHouse" in missing.output) == (1, True)
    before = len(pipeline.read(EPISODE_LABELS))
    say(nobody, "--exclude", "--reason", "x", "--robot", "labelled-0")
    assert len(pipeline.read(EPISODE_LABELS)) == before + 1
