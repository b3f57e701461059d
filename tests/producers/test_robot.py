from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.settings import Settings
from producers.errors import EpisodeClosed, EpisodeOpen, SpoolFull
from producers.policy_store import PolicyFile
from producers.robot import RobotClient
from schemas.events import (
    Actor,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeSource,
    EpisodeStarted,
    Feature,
    Heartbeat,
    Intervention,
    InterventionPhase,
    PolicyActivated,
    Step,
)
from schemas.topics import ROBOT_EPISODES, ROBOT_INTERVENTIONS, ROBOT_STEPS
from tests.producers.fakes import (
    FEATURES,
    MemoryOutbox,
    ScriptedFeed,
    announcement,
    as_event,
    at_least,
    robot,
    started,
)

# Bound of each wait; reached only by a failing test.
PATIENCE = 30.0

STATE, ACTION = np.arange(3, dtype=np.float32), np.arange(2, dtype=np.float32)


def step(episode: Any, **changes: Any) -> None:
    episode.step(**{"state": STATE, "action": ACTION, "reward": -1.0, **changes})


def ended_of(box: MemoryOutbox) -> EpisodeEnded:
    last = box.robot_events()[-1]
    assert isinstance(last, EpisodeBoundary)
    assert isinstance(last.body, EpisodeEnded)
    return last.body


def test_an_episode_travels_as_a_start_its_steps_and_an_end(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        step(episode)
        step(episode, reward=0.5)
        episode.end(success=True, final_state=STATE, simulated_at=12.5)
    start, first, second, end = box.robot_events()
    assert isinstance(start, EpisodeBoundary)
    assert isinstance(start.body, EpisodeStarted)
    assert isinstance(first, Step)
    assert isinstance(second, Step)
    assert isinstance(end, EpisodeBoundary)
    assert box.topics() == [ROBOT_EPISODES, ROBOT_STEPS, ROBOT_STEPS, ROBOT_EPISODES]
    assert [event.sequence for event in box.robot_events()] == [0, 1, 2, 3]
    assert {event.episode_id for event in box.robot_events()} == {episode.episode_id}
    assert UUID(episode.episode_id).version == 7
    assert (first.index, second.index, second.reward) == (0, 1, 0.5)
    assert (first.state, first.action, first.actor) == (STATE.tobytes(), ACTION.tobytes(), Actor.POLICY)
    assert ended_of(box) == EpisodeEnded(
        first_sequence=0,
        end=EpisodeEnd.TERMINATED,
        success=True,
        final_state=STATE.tobytes(),
        step_count=2,
        intervention_count=0,
        simulated_at=12.5,
    )


def test_every_record_has_the_robot_as_key_and_the_episode_s_trace(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box):
        for _ in range(2):
            with started(client) as episode:
                step(episode)
    assert {entry.key for entry in box.items} == {b"robot-1"}
    traces = [entry.traceparent for entry in box.items]
    assert len(set(traces[:3])) == 1
    assert len(set(traces)) == 2


def test_steps_inside_an_intervention_are_the_human_s(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        step(episode)
        with episode.intervention(operator="ada", reason="drifts"):
            step(episode, proposed_action=ACTION + 1)
            step(episode)
        step(episode)
    steps = [event for event in box.robot_events() if isinstance(event, Step)]
    edges = [event for event in box.robot_events() if isinstance(event, Intervention)]
    assert [event.actor for event in steps] == [Actor.POLICY, Actor.HUMAN, Actor.HUMAN, Actor.POLICY]
    assert steps[1].proposed_action == (ACTION + 1).tobytes()
    assert [edge.phase for edge in edges] == [InterventionPhase.BEGIN, InterventionPhase.END]
    assert [(edge.first_step, edge.last_step) for edge in edges] == [(1, None), (1, 2)]
    assert edges[0].intervention_id == edges[1].intervention_id
    assert {(edge.operator, edge.reason) for edge in edges} == {("ada", "drifts")}
    assert ended_of(box).intervention_count == 1


def test_an_intervention_without_a_step_ends_before_it_began(tmp_path: Path) -> None:
    with (
        robot(tmp_path) as (client, box),
        started(client) as episode,
        episode.intervention(operator="a", reason=""),
    ):
        pass
    edges = [event for event in box.robot_events() if isinstance(event, Intervention)]
    assert [(edge.first_step, edge.last_step) for edge in edges] == [(0, None), (0, -1)]


def test_ending_inside_an_intervention_ends_the_intervention_first(tmp_path: Path) -> None:
    with (
        robot(tmp_path) as (client, box),
        started(client) as episode,
        episode.intervention(operator="a", reason=""),
    ):
        step(episode)
        episode.end(success=True)
    assert box.topics()[-2:] == [ROBOT_INTERVENTIONS, ROBOT_EPISODES]
    assert [event.sequence for event in box.robot_events()] == list(range(5))


def test_interventions_do_not_nest(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, _), started(client) as episode:
        episode.intervention(operator="a", reason="").begin()
        with pytest.raises(ValueError, match="a has taken over already"):
            episode.intervention(operator="b", reason="").begin()


def test_a_demonstration_is_the_human_s_throughout(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client, source=EpisodeSource.DEMONSTRATION) as episode:
        step(episode)
    assert [event.actor for event in box.robot_events() if isinstance(event, Step)] == [Actor.HUMAN]


def test_leaving_without_an_end_truncates(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        step(episode)
    assert (ended_of(box).end, ended_of(box).success) == (EpisodeEnd.TRUNCATED, None)


def test_leaving_by_an_exception_aborts_and_the_exception_goes_on(tmp_path: Path) -> None:
    box = MemoryOutbox()
    with pytest.raises(ZeroDivisionError), robot(tmp_path, box) as (client, _), started(client):
        _ = 1 / 0
    assert ended_of(box).end is EpisodeEnd.ABORTED


def test_closing_the_client_ends_what_is_open(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box):
        step(started(client))
    assert ended_of(box).end is EpisodeEnd.TRUNCATED
    assert box.drained_for == 30.0


def test_the_last_heartbeat_tells_what_is_left_after_kafka_was_waited_for(tmp_path: Path) -> None:
    class Draining(MemoryOutbox):
        def drain(self, timeout: float) -> None:
            super().drain(timeout)
            del self.items[:-1]

    box = Draining()
    with robot(tmp_path, box) as (client, _), started(client) as episode:
        step(episode)
    last = as_event(box.offered[-1])
    assert isinstance(last, Heartbeat)
    assert (last.spool_depth, box.closed_with) == (1, 30.0)


def test_an_ended_episode_takes_nothing_more(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        episode.end(truncated=True)
        count = len(box.items)
        for late in (
            lambda: step(episode),
            episode.end,
            episode.intervention(operator="a", reason="").begin,
        ):
            with pytest.raises(EpisodeClosed, match="ended TRUNCATED"):
                late()
    assert len(box.items) == count


def test_one_episode_at_a_time(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, _):
        episode = started(client)
        with pytest.raises(EpisodeOpen, match=episode.episode_id):
            started(client)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": np.zeros(4)}, "state has shape"),
        ({"action": [np.nan, 0]}, "action is not finite"),
        ({"reward": float("inf")}, "reward is not finite"),
        ({"policy_version": -1}, "must not be negative"),
        ({"proposed_action": ACTION}, "the policy acts now"),
        ({"frames": {"wrist": np.zeros((2, 2, 3), np.uint8)}}, "wrist"),
    ],
)
def test_a_bad_step_uses_no_sequence_number(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        with pytest.raises(ValueError, match=reason):
            step(episode, **changes)
        step(episode)
    assert [event.sequence for event in box.robot_events()] == [0, 1, 2]
    assert ended_of(box).step_count == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"terminated": True, "truncated": True}, "not both"),
        ({"final_state": np.zeros(9)}, "final_state has shape"),
        ({"simulated_at": float("nan")}, "simulated_at is not finite"),
    ],
)
def test_a_bad_end_leaves_the_episode_open(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        with pytest.raises(ValueError, match=reason):
            episode.end(**changes)
        step(episode)
    assert ended_of(box).step_count == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fps": 0.0}, "fps is"),
        ({"fps": float("nan")}, "fps is"),
        ({"task": ""}, "needs a task"),
        ({"features": ()}, "feature 'state' is missing"),
        ({"max_steps": 0}, "max_steps is .* a whole number above 0, got 0"),
        ({"max_steps": -5}, "got -5"),
        ({"max_steps": 1e4}, r"got 10000\.0"),
        (
            {"features": (Feature(name="state", dtype="float64", shape=(3,)), FEATURES[1])},
            "'state' has dtype 'float64'; vectors are recorded as float32",
        ),
    ],
)
def test_a_bad_start_opens_nothing(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with robot(tmp_path) as (client, box):
        with pytest.raises(ValueError, match=reason):
            started(client, **changes)
        started(client)
    assert [event.sequence for event in box.robot_events()] == [0, 1]


def test_no_room_for_a_whole_episode_refuses_it_at_its_start(tmp_path: Path) -> None:
    with robot(tmp_path, MemoryOutbox(capacity=10)) as (client, box):
        with pytest.raises(SpoolFull):
            started(client, max_steps=100)
        started(client, max_steps=5)
    assert len(box.items) == 2


def test_a_refused_step_uses_no_sequence_number_and_the_end_still_fits(tmp_path: Path) -> None:
    def record_too_much(client: RobotClient) -> None:
        with started(client, max_steps=2) as episode:
            for _ in range(9):
                step(episode)

    with robot(tmp_path, MemoryOutbox(capacity=5)) as (client, box), pytest.raises(SpoolFull):
        record_too_much(client)
    assert [event.sequence for event in box.robot_events()] == list(range(6))
    assert (ended_of(box).end, ended_of(box).step_count) == (EpisodeEnd.ABORTED, 4)


def test_a_data_directory_may_be_named_by_text(tmp_path: Path) -> None:
    named = str(tmp_path / "arm")
    with RobotClient(Settings(), "arm", named, outbox=MemoryOutbox(), heartbeat_interval=None) as client:
        started(client).end()
    assert (tmp_path / "arm" / "boot_epoch").read_text() == f"{client.boot_epoch}\n"


@pytest.mark.parametrize("robot_id", ["", "a/b", "a b", "ä", "x" * 101])
def test_a_robot_id_that_could_not_be_a_key_is_refused(tmp_path: Path, robot_id: str) -> None:
    with pytest.raises(ValueError, match="is not a robot_id"):
        RobotClient(Settings(), robot_id, tmp_path, outbox=MemoryOutbox())


def test_every_boot_begins_a_higher_epoch_and_counts_from_zero(tmp_path: Path) -> None:
    clock, first, second = ManualClock(), MemoryOutbox(), MemoryOutbox()
    for box in (first, second):
        with robot(tmp_path, box, clock) as (client, _):
            started(client)
    assert second.robot_events()[0].boot_epoch > first.robot_events()[0].boot_epoch
    assert second.robot_events()[0].sequence == 0


def policy_file(tmp_path: Path, version: int) -> PolicyFile:
    return PolicyFile(announcement(version, b"weights"), tmp_path / "file")


def test_a_policy_is_announced_and_marks_the_steps_that_follow(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box):
        with started(client) as before:
            step(before)
        client.activate(policy_file(tmp_path, 7))
        with started(client) as after:
            step(after)
            step(after, policy_version=3)
        with started(client, source=EpisodeSource.DEMONSTRATION) as demonstration:
            step(demonstration)
    assert [event.policy_version for event in box.events() if isinstance(event, Step)] == [0, 7, 3, 0]
    activated = [event for event in box.events() if isinstance(event, PolicyActivated)]
    assert [(event.policy, event.version) for event in activated] == [("line", 7)]
    bodies = [event.body for event in box.events() if isinstance(event, EpisodeBoundary)]
    assert [body.policy for body in bodies if isinstance(body, EpisodeStarted)] == ["", "line", ""]
    # Activations are no robot events: they do not take part in the sequence.
    assert [event.sequence for event in box.robot_events()] == list(range(10))


def test_policies_change_between_episodes_only(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, _):
        client.activate(policy_file(tmp_path, 1))
        with started(client), pytest.raises(EpisodeOpen, match="between episodes only"):
            client.activate(policy_file(tmp_path, 2))
        assert client.active_policy is not None
        assert client.active_policy.version == 1


def test_following_a_second_line_leaves_the_policies_of_the_first(tmp_path: Path) -> None:
    first, second = ScriptedFeed(), ScriptedFeed()
    with robot(tmp_path) as (client, _):
        line, base = client.follow("line", feed=first), client.follow("base", feed=second)
        for version in (1, 2, 3):
            first.publish(version, b"weights %d" % version)
            assert line.wait_for(at_least(version), PATIENCE) is not None
        # "base" sorts before "line": one directory for both would count its file as the oldest.
        second.publish(1, b"other weights", policy="base")
        file = base.wait_for(at_least(1), PATIENCE)
        assert file is not None
        assert file.read() == b"other weights"
        newest = line.current()
        assert newest is not None
        assert newest.read() == b"weights 3"


@pytest.mark.parametrize("line", ["", "../../escape", "a/b", "no spaces"])
def test_a_policy_line_has_a_name_that_leaves_the_robot_s_folder_alone(tmp_path: Path, line: str) -> None:
    with robot(tmp_path / "robot") as (client, _), pytest.raises(ValueError, match="not a policy line"):
        client.follow(line, feed=ScriptedFeed())
    assert [path.name for path in tmp_path.iterdir()] == ["robot"]


def test_a_heartbeat_tells_what_was_said_last_and_counts_online_episodes(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box):
        for source in EpisodeSource:
            started(client, source=source).end()
        client.heartbeat(simulated_seconds=60.0, waiting=True)
        client.heartbeat()
        beats = [as_event(entry) for entry in box.offered]
    assert [b.episodes_ended for b in beats if isinstance(b, Heartbeat)] == [1, 1]
    assert [b.waiting for b in beats if isinstance(b, Heartbeat)] == [True, False]
    assert [b.simulated_seconds for b in beats if isinstance(b, Heartbeat)] == [60.0, 60.0]
