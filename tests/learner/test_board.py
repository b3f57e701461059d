from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

from learner.board import Board
from schemas.events import TaskMixing, TrainingGroup, TrainingMetric, TrainingProgress
from tests.learner.synthetic import START


def report(step: int, loss: float, **changes: object) -> TrainingProgress:
    event = TrainingProgress(
        policy="arm",
        learner_step=step,
        reported_at=START,
        loss=loss,
        groups=(
            TrainingGroup(task="push", online=True, draws=10, loss=2 * loss),
            TrainingGroup(task="push", online=False, draws=10, loss=0.5),
        ),
        online_share=0.5,
        episodes_admitted=7,
        steps_admitted=700,
        offsets=(),
        mixing=(TaskMixing(task="push", first_step=step - 1, online_shares=(0.25, 0.75)),),
        updates_skipped=3,
        metrics=(TrainingMetric(name="learning_rate", value=0.25),),
    )
    return event.model_copy(update=changes)


def events(path: Path) -> Iterator[Event]:
    """Of one file: length and its checksum, 12 bytes, then the event, then its checksum, 4 bytes."""
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if at + 16 + length > len(data):
            return  # a kill cut it short
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard shows them: files in the order of their names; a session's begin takes later steps away."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        assert "tfevents" in path.name
        first = next(events(path), None)
        if first is None:
            continue  # a kill came before the first point was written out
        assert first.file_version == "brain.Event:2"
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                found = {tag: [p for p in points if p[0] < event.step] for tag, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 6)))
    return found


def test_what_is_reported_is_read_back_as_curves_by_task_and_source(tmp_path: Path) -> None:
    board = Board(tmp_path, "arm")
    board.show(report(20, 1.5), 11)
    board.show(report(30, 1.25, simulated_seconds=60.0), 21)
    found = curves(tmp_path / "arm")
    assert found["loss"] == [(20, 1.5), (30, 1.25)], "each report is on the disk at once"
    (path,) = (tmp_path / "arm").iterdir()
    assert {event.wall_time for event in events(path)} == {START.timestamp()}
    assert found["loss_by_task/push/online"] == [(20, 3.0), (30, 2.5)]
    assert found["loss_by_task/push/offline"] == [(20, 0.5), (30, 0.5)]
    assert found["online_share"] == found["online_share_by_task/push"] == [(20, 0.5), (30, 0.5)]
    assert found["updates_skipped"] == [(20, 3.0), (30, 3.0)]
    assert found["metrics/learning_rate"] == [(20, 0.25), (30, 0.25)]
    assert found["data/episodes_admitted"] == [(20, 7.0), (30, 7.0)]
    assert found["data/steps_admitted"] == [(20, 700.0), (30, 700.0)]
    assert found["data/simulated_seconds"] == [(30, 60.0)]
    board.close()


def test_what_is_trained_again_after_a_kill_is_shown_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        killed = Board(tmp_path, "arm")
        killed.show(report(20 * number, 1.0), 20 * number - 19)
        killed.show(report(20 * number + 10, 9.0 * number), 20 * number + 1)
        last = sorted((tmp_path / "arm").iterdir())[-1]
        with last.open("ab") as file:
            file.write(last.read_bytes()[:20])  # a record that the kill cut short
    assert curves(tmp_path / "arm")["loss"] == [(20, 1.0), (40, 1.0), (60, 1.0), (70, 27.0)]


def test_a_disk_that_fails_costs_points_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("in the way")
    board = Board(tmp_path, "arm")
    board.show(report(20, 1.0), 11)
    (tmp_path / "arm").unlink()
    board.show(report(30, 2.0), 21)
    assert curves(tmp_path / "arm")["loss"] == [(30, 2.0)]
    board.close()
