"""The publisher's process dies at the worst moments, and what keeps it goes on."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.object_store import ObjectStore
from infra.settings import KafkaSettings, RegistrySettings, S3Settings, Settings
from infra.telemetry import new_traceparent
from producers import kept_process
from producers.heartbeats import told
from producers.outbox import Item, item
from producers.spool.__main__ import _objects
from producers.spool.directory import SpoolDirectory
from producers.spool.messages import Begin, Offer, status_line
from producers.spool.process import PublisherProcess
from producers.spool.publisher import Status
from schemas.events import Heartbeat
from schemas.topics import ROBOT_STATUS

NOWHERE = Settings(
    kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"), registry=RegistrySettings(url="http://127.0.0.1:1")
)


def beat(robot_id: str = "arm", errors: tuple[str, ...] = ()) -> Item:
    now = ManualClock().now()
    event = Heartbeat(
        robot_id=robot_id,
        boot_epoch=1,
        reported_at=now,
        spool_depth=0,
        spool_age_seconds=0.0,
        policy="",
        policy_version=0,
        episodes_ended=0,
        errors=errors,
    )
    return item(ROBOT_STATUS, robot_id, event, new_traceparent(), now.timestamp())


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_one_that_is_killed_before_it_has_read_a_word_twice_is_started_again_and_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_process, "_FIRST_PAUSE", 0.01)
    start, lives = subprocess.Popen, 0

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        nonlocal lives
        lives += 1
        process: subprocess.Popen[str] = start(*arguments, **options)
        if lives <= 2:
            publisher.offer(beat())  # there is nobody yet: it is kept for who comes
            process.kill()
            process.wait()
        return process

    publisher = PublisherProcess.__new__(PublisherProcess)
    monkeypatch.setattr(subprocess, "Popen", popen)
    publisher.__init__(NOWHERE, SpoolDirectory(tmp_path), "arm", 1)  # type: ignore[misc]
    eventually(lambda: lives == 3 and not any("ended" in error for error in publisher.errors()))
    assert publisher._offer == b"", "the third one has it"
    publisher.stop()
    publisher.offer(beat())


def test_one_whose_robot_is_gone_ends_at_once_and_leaves_the_spool_to_the_next(tmp_path: Path) -> None:
    directory = SpoolDirectory(tmp_path)
    begin = Begin(
        robot_id="arm",
        boot_epoch=1,
        robot_pid=os.getppid(),  # a process that lives, and is not the publisher's parent
        directory=str(tmp_path),
        kafka=NOWHERE.kafka,
        registry=NOWHERE.registry,
        robot=NOWHERE.robot,
        s3=NOWHERE.s3,
    )
    with directory.exclusive(0.0):  # it does not even wait for it: that would fail
        orphan = subprocess.run(
            [sys.executable, "-m", "producers.spool"],
            input=begin.line(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert orphan.returncode == 0, orphan.stderr


def test_who_sees_the_status_of_a_new_life_does_not_hear_of_the_trouble_before() -> None:
    publisher = PublisherProcess.__new__(PublisherProcess)
    publisher._status = Status(1)
    seen = []

    class Kept:
        def __setattr__(self, name: str, value: object) -> None:
            seen.append((name, value, publisher.status().acknowledged))

    publisher._kept = Kept()  # type: ignore[assignment]
    publisher._hear(status_line(Status(2)))
    assert (seen, publisher.status().acknowledged) == ([("trouble", None, 1)], 2)


def test_settings_that_kafka_s_client_refuses_are_told(tmp_path: Path) -> None:
    wrong = KafkaSettings(security_protocol="SSL", ssl_ca_location=tmp_path / "none")
    settings = NOWHERE.model_copy(update={"kafka": wrong})
    publisher = PublisherProcess(settings, SpoolDirectory(tmp_path), "arm", 1)
    eventually(lambda: any("SOP_KAFKA__SSL_CA_LOCATION" in error for error in publisher.errors()))
    publisher.stop()


def test_a_heartbeat_full_of_troubles_in_any_script_is_sent_whole() -> None:
    longest = beat("r" * 100, told(["故障" * 500] * 20))
    assert len(Offer.of(longest).line()) <= select.PIPE_BUF - 500


def test_a_robot_s_frames_keep_to_the_cap_of_its_settings() -> None:
    store = _objects(S3Settings(max_put_bytes_per_second=0.001))
    assert isinstance(store, ObjectStore)
    assert store._pace.reserve(1) == 0.0
    assert 900 < store._pace.reserve(1) <= 1000
