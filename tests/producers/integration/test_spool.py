"""The spool under what it is for: outages, kills, and boots without a network."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from consumers.payload import read_payload
from infra.local.stack import Stack
from infra.settings import RegistrySettings, Settings
from producers.episode import Episode
from producers.errors import DataDirBusy, SpoolFull, Undelivered
from producers.robot import RobotClient
from producers.spool.outbox import SpoolOutbox
from schemas.events import EpisodeBoundary, EpisodeEnd, EpisodeEnded, Feature, RobotEvent, Step
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.preloaded import CONTEXT
from tests.producers.fakes import FEATURES
from tests.producers.integration.conftest import DEADLINE, once, telling
from tests.producers.spool import victim
from tests.producers.spool.parts import older_client_s

KILLS = 20


def numbers(events: list[RobotEvent]) -> list[tuple[int, int]]:
    return [(event.boot_epoch, event.sequence) for event in events]


def record(client: RobotClient, steps: int, pause: float = 0.0, width: int = 3) -> None:
    features = (Feature(name="state", shape=(width,)), Feature(name="action", shape=(2,)))
    state, action = np.zeros(width), np.ones(2)
    with client.episode(task="push", instruction="Push.", features=features, fps=50.0) as episode:
        for _ in range(steps):
            episode.step(state=state, action=action)
            time.sleep(pause)


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def size(ledger: Path) -> int:
    return ledger.stat().st_size if ledger.exists() else 0


def publisher_of(client: RobotClient) -> psutil.Process:
    """The process beside this one."""
    outbox = client._outbox
    assert isinstance(outbox, SpoolOutbox)
    process = outbox._publisher._process  # type: ignore[attr-defined]
    return psutil.Process(process.pid)


def test_an_event_that_kafka_never_takes_blocks_no_robot_and_is_told(settings: Settings, tmp_path: Path) -> None:
    sizes = (2_000_000, 1_060_000, 900_000)  # beyond the client, beyond the topic, within both
    with RobotClient(settings, "oversized", tmp_path, heartbeat_interval=0.1, close_timeout=DEADLINE) as client:
        outbox = client._outbox
        assert isinstance(outbox, SpoolOutbox)
        for size in sizes:
            older_client_s(outbox._store, random.Random(size).randbytes(size))
        record(client, 20)
        eventually(lambda: outbox.depth() == 0, "it blocks")
        eventually(lambda: any("2 events larger than Kafka takes" in error for error in client.errors()), "untold")
        telling(client, settings, lambda beat: any("2 events larger than Kafka takes" in e for e in beat.errors))
    assert len(once(settings, "oversized")) == 22 + 1


@dataclass(frozen=True)
class Outage:
    """What is recorded meanwhile: so many steps with so many floats, so many seconds apart."""

    how: str
    steps: int
    pause: float
    width: int


@pytest.mark.parametrize(
    "outage",
    [
        Outage("pause", 6_000, 0.0, 2_048),
        Outage("kill", 300, 0.01, 64),
        pytest.param(Outage("pause", 3_000, 0.02, 8_192), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_a_broker_that_goes_under_recording_gets_everything_in_order_and_memory_stays_flat(
    settings: Settings, stack: Stack, tmp_path: Path, outage: Outage
) -> None:
    how, steps, pause, width = astuple(outage)
    robot_id = f"outage-{how}-{steps}"
    with RobotClient(settings, robot_id, tmp_path, close_timeout=3 * DEADLINE) as client:
        record(client, 50, width=width)
        eventually(lambda: client._outbox.depth() == 0, "never on line")
        processes = publisher_of(client), psutil.Process()
        before = [process.memory_info().rss for process in processes]
        (stack.pause if how == "pause" else stack.kill)("broker")
        try:
            record(client, steps, pause, width)
            eventually(lambda: client._outbox.age_seconds() > 0.5, "age not told")
            assert client._outbox.depth() >= steps
            time.sleep(1.0)  # for a publisher that would hold more than it should
            grown = [process.memory_info().rss - rss for process, rss in zip(processes, before, strict=True)]
        finally:
            (stack.resume if how == "pause" else stack.restart)("broker")
    spooled = steps * width * 4
    for who, more in zip(("publisher", "robot"), grown, strict=True):
        assert more < 36 * 2**20, f"{who}: {more / 2**20:.0f} MiB for {spooled / 2**20:.0f} MiB of steps"
    events = once(settings, robot_id)
    assert numbers(events) == [(client.boot_epoch, n) for n in range(steps + 50 + 4)]


def test_a_robot_killed_twenty_times_has_every_step_that_returned_in_kafka_and_each_episode_ended(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    chance = random.Random(7)
    ledger, data_dir = tmp_path / "ledger", tmp_path / "robot"
    for life in range(KILLS):
        process = CONTEXT.Process(target=victim.live, args=(stack.environment(), data_dir, ledger, life))
        recorded = size(ledger)
        process.start()
        # Most die before their publisher is even up; some live long enough to have sent.
        if life % 7 == 6:
            eventually(lambda recorded=recorded: size(ledger) > recorded, "never recorded")  # type: ignore[misc]
            time.sleep(chance.uniform(1.5, 3.0))
        else:
            time.sleep(chance.uniform(0.05, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    with RobotClient(settings, victim.ROBOT, data_dir, close_timeout=3 * DEADLINE) as client:
        assert client._outbox.errors() == ()
    returned = {tuple(line.split()) for line in ledger.read_text().splitlines()}
    assert len(returned) > KILLS
    events = once(settings, victim.ROBOT)
    arrived = {(str(e.boot_epoch), e.episode_id, str(e.index)) for e in events if isinstance(e, Step)}
    assert returned <= arrived, "lost"
    assert len(arrived - returned) <= KILLS, "a kill between a step and the ledger makes one more, at most"
    for epoch in {event.boot_epoch for event in events}:
        sequences = [event.sequence for event in events if event.boot_epoch == epoch]
        assert sequences == list(range(len(sequences))), "a gap"
    for episode_id in {e.episode_id for e in events}:
        check_ended([e for e in events if e.episode_id == episode_id])
    ends = [e.body.end for e in events if isinstance(e, EpisodeBoundary) and isinstance(e.body, EpisodeEnded)]
    assert EpisodeEnd.ABORTED in ends
    assert ends.count(EpisodeEnd.ABORTED) <= KILLS
    check_payloads(settings, tmp_path, events, returned)


def check_payloads(
    settings: Settings, logs: Path, events: list[RobotEvent], returned: set[tuple[str, ...]]
) -> None:
    """What the robot wrote into its ledger lies in the payloads, and nothing else but what Kafka has."""
    episodes = {event.episode_id for event in events}
    with Pipeline(settings, logs) as pipeline:
        pipeline.start("materialize")
        wait_until(lambda: episodes <= pipeline.newest().keys(), "every episode in a payload")
        stored = set()
        for episode_id, found in pipeline.newest().items():
            if episode_id in episodes:
                steps = read_payload(pipeline.objects.get(pipeline.objects.key(found.payload_uri))).steps
                for row in map(steps.values, range(len(steps))):
                    stored.add((episode_id, int(str(row["sequence"])), row["state"], row["action"]))
    sent = [event for event in events if isinstance(event, Step)]
    assert stored == {(step.episode_id, step.sequence, step.state, step.action) for step in sent}
    assert returned <= {(str(step.boot_epoch), step.episode_id, str(step.index)) for step in sent}


def check_ended(events: list[RobotEvent]) -> None:
    first, last = events[0], events[-1]
    assert isinstance(first, EpisodeBoundary)
    assert isinstance(last, EpisodeBoundary)
    assert isinstance(last.body, EpisodeEnded)
    assert last.body.first_sequence == first.sequence
    assert last.sequence == first.sequence + len(events) - 1
    assert last.body.step_count == sum(isinstance(event, Step) for event in events)


def test_a_spool_at_its_bound_refuses_an_episode_and_no_step_and_goes_on_once_kafka_took_some(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    bound = {"max_spool_bytes": 2**20, "segment_bytes": 2**16, "min_free_bytes": 0}
    settings = settings.model_copy(update={"robot": settings.robot.model_copy(update=bound)})

    def begin() -> Episode:
        return client.episode(task="push", instruction="Push.", features=FEATURES, fps=50.0, max_steps=500)

    with RobotClient(settings, "quota", tmp_path, close_timeout=DEADLINE) as client:
        with begin() as episode:
            episode.step(state=np.zeros(3), action=np.ones(2))
        eventually(lambda: client._outbox.depth() == 0, "never on line")
        stack.pause("broker")
        try:
            episodes = 0
            while True:
                try:
                    episode = begin()
                except SpoolFull as full:
                    assert "MAX_SPOOL_BYTES" in str(full)  # noqa: PT017 - where it is raised is what counts
                    break
                with episode:
                    for _ in range(500):
                        episode.step(state=np.zeros(3), action=np.ones(2))
                episodes += 1
                assert episodes < 100, "never full"
            assert episodes > 0
            assert client._outbox.used_bytes() <= 2**20
        finally:
            stack.resume("broker")
        eventually(lambda: client._outbox.depth() == 0, "not sent")
        begin().end()
    sequences = 3 + episodes * 502 + 2
    assert numbers(once(settings, "quota")) == [(client.boot_epoch, n) for n in range(sequences)]


def test_a_publisher_that_is_killed_is_started_again_and_nothing_is_lost(
    settings: Settings, tmp_path: Path
) -> None:
    with RobotClient(settings, "publisher-killed", tmp_path, close_timeout=DEADLINE) as client:
        record(client, 100)
        eventually(lambda: client._outbox.depth() == 0, "never on line")
        publisher_of(client).kill()
        record(client, 100)
        eventually(lambda: client._outbox.errors() != (), "nobody says that it is gone")
        eventually(lambda: client._outbox.depth() == 0, "not started again")
        assert client._outbox.errors() == ()
    assert numbers(once(settings, "publisher-killed")) == [(client.boot_epoch, n) for n in range(204)]


def test_a_robot_that_boots_with_every_address_dead_records_and_sends_after_the_next_boot(
    settings: Settings, tmp_path: Path
) -> None:
    dead = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(
                update={"bootstrap_servers": "127.0.0.1:9", "request_timeout": 1.0}
            ),
            "registry": RegistrySettings(url="http://127.0.0.1:9/x", timeout=1.0),
            "s3": settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:9"}),
        }
    )
    client = RobotClient(dead, "off-line", tmp_path)
    inbox = client.follow("default")
    assert inbox.current() is None
    record(client, 20)
    eventually(
        lambda: any("127.0.0.1:9" in error for error in client._outbox.errors()), "the registry is not named"
    )
    assert client._outbox.depth() == 22
    with pytest.raises(Undelivered, match=r"22 events .* are kept in"):
        client.close(0.1)
    with RobotClient(settings, "off-line", tmp_path, close_timeout=DEADLINE) as second:
        record(second, 1)
        eventually(lambda: second._outbox.depth() == 0, "never on line")
        second.heartbeat()
    expected = [(client.boot_epoch, n) for n in range(22)] + [(second.boot_epoch, n) for n in range(3)]
    assert numbers(once(settings, "off-line")) == expected


def test_a_robot_that_was_on_line_before_sends_while_the_registry_is_away_and_says_so(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    registry = settings.registry.model_copy(update={"timeout": 1.0})
    settings = settings.model_copy(update={"registry": registry})
    with RobotClient(settings, "known-ids", tmp_path, close_timeout=DEADLINE) as first:
        record(first, 5)
        eventually(lambda: first._outbox.depth() == 0, "never on line")
    stack.pause("registry")
    try:
        with RobotClient(settings, "known-ids", tmp_path, close_timeout=DEADLINE) as second:
            record(second, 5)
            eventually(lambda: second._outbox.depth() == 0, "not sent")
            eventually(lambda: any("the schema registry" in error for error in second.errors()), "not told")
    finally:
        stack.resume("registry")
    expected = [(client.boot_epoch, n) for client in (first, second) for n in range(7)]
    assert numbers(once(settings, "known-ids")) == expected


def test_a_heartbeat_tells_the_spool_s_depth_bytes_and_the_clock_s_offset(
    settings: Settings, tmp_path: Path
) -> None:
    with RobotClient(settings, "clock", tmp_path, close_timeout=DEADLINE, heartbeat_interval=None) as client:
        record(client, 20)
        beat = telling(client, settings, lambda beat: beat.clock_offset_seconds is not None)
    offset, error = beat.clock_offset_seconds, beat.clock_offset_error_seconds
    assert offset is not None
    assert error is not None
    assert abs(offset) <= error, "broker and robot are one machine: the true offset is 0"
    assert (beat.spool_bytes or 0) > 0
    assert beat.spool_depth >= 0


def test_a_second_client_of_the_same_robot_is_refused_in_words(settings: Settings, tmp_path: Path) -> None:
    with (
        RobotClient(settings, "twice", tmp_path),
        pytest.raises(DataDirBusy, match="in use by another robot client"),
    ):
        RobotClient(settings, "twice", tmp_path)


def test_two_clients_of_one_name_notice_each_other_and_robot_status_has_it(
    settings: Settings, tmp_path: Path
) -> None:
    def client(name: str) -> RobotClient:
        return RobotClient(settings, "cloned", tmp_path / name, close_timeout=DEADLINE, heartbeat_interval=0.3)

    with client("a") as first, client("b") as second:
        assert first.boot_epoch != second.boot_epoch
        until = time.monotonic() + 3 * DEADLINE
        for mine, other in ((first, second), (second, first)):
            while not any(f"alive (boot epoch {other.boot_epoch}" in error for error in mine.errors()):
                assert time.monotonic() < until, mine.errors()
                time.sleep(0.05)
        clone = "another client with the robot_id cloned"
        telling(first, settings, lambda beat: any(clone in error for error in beat.errors))
