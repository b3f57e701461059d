"""Beside live processes, from the command line; and last what cannot be mended any more."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

from typer.testing import CliRunner

from consumers.audit.findings import Kind, Where
from consumers.audit.reconcile import Options, reconcile
from infra.kafka import EventProducer, OutRecord
from infra.registry import Registry
from schemas import codec
from schemas.topics import TRAINING_EPISODES
from sop import app
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.consumers.robots import Robot


def sop(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_audits_beside_live_processes_find_nothing_wrong(pipeline: Pipeline) -> None:
    port = free_port()
    member = pipeline.start("materialize", SOP_MATERIALIZER__OFFSETS_INTERVAL="0.3")
    index = pipeline.start("index", SOP_METRICS_PORT=str(port))
    wait_until(lambda: status(port, "/ready") == 200, "the index is ready")
    assert status(port, "/health") == 200
    robots = [Robot(f"live-{n}") for n in range(4)]
    sent = set()
    for _ in range(2):
        episodes = [robot.episode(15, intervene_at=4) for robot in robots]
        for events in episodes:
            pipeline.send(events)
            sent.add(events[0].episode_id)
        report = reconcile(pipeline.settings, Options())
        assert [(finding.name, finding.text) for finding in report.findings] == []
    wait_until(lambda: sent <= pipeline.newest().keys(), "all announced")
    assert reconcile(pipeline.settings, Options()).clean
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0


def test_commands_say_what_they_did_and_exit_by_it(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, output = sop("reconcile", "--json", str(file), "--since", "7d")
    assert code == 0, output
    assert "clean" in output
    report = json.loads(file.read_text())
    assert (report["clean"], report["findings"]) == (True, [])
    key = pipeline.objects.key(next(iter(pipeline.newest().values())).payload_uri)
    pipeline.objects.delete(key)
    code, output = sop("reconcile", "--json", str(file))
    assert (code, key in output) == (1, True)
    assert [finding["key"] for finding in json.loads(file.read_text())["findings"]] == [key]
    assert sop("reconcile", "--repair")[0] == 0
    assert sop("reconcile", "--since", "yesterday")[0] == 2
    assert sop("gc", "--grace", "soon")[0] == 2
    code, output = sop("gc", "--dry-run")
    assert (code, "would be removed" in output) == (0, True)
    code, output = sop("reindex", "--from", "s3")
    assert (code, "raw_episodes" in output) == (0, True)
    assert sop("reindex", "--from", "memory")[0] == 2
    assert sop("reindex")[0] == 0


def test_an_announcement_that_was_made_twice_and_one_that_goes_back_are_named(pipeline: Pipeline) -> None:
    events = {event.robot_id: event for event in pipeline.newest().values()}
    twice, back = events["robot-0"], events["robot-1"]
    schema_id = Registry(pipeline.settings.registry).id_of(TRAINING_EPISODES, codec.latest(twice.record))
    producer = EventProducer(pipeline.settings.kafka, "forger")
    further = back.model_copy(update={"revision": 3, "sequences": back.sequences[:0]})
    for event in (twice, further, back.model_copy(update={"revision": 2})):
        record = OutRecord(TRAINING_EPISODES, event.robot_id.encode(), codec.frame(schema_id, codec.encode(event)))
        assert producer.send(record)
    assert producer.flush(30.0) == 0
    report = reconcile(pipeline.settings, Options())
    found = [(f.where, f.kind, f.episode_id, f.revision) for f in report.findings]
    assert (Where.TRAINING_STREAM, Kind.DOUBLED, twice.episode_id, 1) in found
    assert (Where.TRAINING_STREAM, Kind.WRONG, back.episode_id, 2) in found
    assert (Where.TRAINING_STREAM, Kind.MISSING, back.episode_id, 3) in found
    missing = {f.topic for f in report.findings if (f.where, f.kind) == (Where.ROBOT_TOPICS, Kind.MISSING)}
    assert missing == {"robot-steps", "robot-episodes", "robot-interventions"}, "revision 3 lists nothing"
    code, output = sop("reconcile", "--repair")
    assert code == 1
    assert f"doubled (training stream) episode {twice.episode_id} revision 1" in output
