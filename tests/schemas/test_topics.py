"""`topics.yaml` keeps the promises that the processes rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas import topics
from schemas.events import EVENTS, RobotEvent
from schemas.topics import EPISODE_TOPICS, INDEX_TOPICS, ROBOT_TOPICS, TOPICS, Topic, load_topics

DAY_FOR_DAY = {
    "robot-steps": 7,
    "robot-interventions": 90,
    "robot-episodes": 90,
    "robot-status": None,
    "policy-activations": 90,
    "episode-labels": None,
    "training-episodes": None,
    "training-progress": 90,
    "training-lineage": None,
    "policy-versions": None,
    "policy-rollouts": None,
    "dead-letters": 90,
}


def test_every_topic_is_kept_for_as_long_as_promised() -> None:
    assert {name: topic.retention_days for name, topic in TOPICS.items()} == DAY_FOR_DAY


@pytest.mark.parametrize("name", TOPICS)
def test_names_are_kebab_case_because_metrics_fold_dots_and_underscores_together(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_an_entry_is_one_that_kafka_and_the_reader_can_act_on(topic: Topic) -> None:
    assert topic.partitions >= 1
    assert topic.description.endswith(".")
    assert topic.event is None or topic.event in EVENTS
    assert topic.subject == f"{topic.name}-value"
    assert topic.retention_days is None or (topic.retention_days > 0 and topic.cleanup == "delete")
    assert topic.timestamp == "LogAppendTime", "retention and timeouts count from arrival"


def test_everything_that_is_keyed_by_robot_and_folded_together_shares_its_partitions() -> None:
    together = {topic.name for topic in TOPICS.values() if topic.co_partitioned}
    assert together == {*EPISODE_TOPICS, "training-episodes", "dead-letters"}
    assert {TOPICS[name].key for name in together} == {"robot_id"}
    assert len({TOPICS[name].partitions for name in together}) == 1


def test_exactly_the_robot_topics_carry_events_with_a_sequence() -> None:
    carrying = {
        topic.name for topic in TOPICS.values() if topic.event and issubclass(EVENTS[topic.event], RobotEvent)
    }
    assert carrying == set(ROBOT_TOPICS)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_a_key_is_made_of_fields_of_the_event(topic: Topic) -> None:
    if topic.event is None:
        assert topic.key == "robot_id", "a dead letter keeps the key of its record"
    else:
        assert set(topic.key.split("/")) <= EVENTS[topic.event].model_fields.keys()


def test_constants_and_groups_name_every_topic_and_no_other() -> None:
    constants = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}
    assert constants == set(TOPICS)
    assert set(EPISODE_TOPICS) | set(INDEX_TOPICS) == set(TOPICS)
    assert not set(EPISODE_TOPICS) & set(INDEX_TOPICS), "steps reach ClickHouse as episodes only"


def test_topics_that_must_share_partitions_and_do_not_are_refused(tmp_path: Path) -> None:
    changed = topics.TOPICS_FILE.read_text().replace("    event: step\n", "    event: step\n    partitions: 8\n")
    file = tmp_path / "topics.yaml"
    file.write_text(changed)
    with pytest.raises(ValueError, match=r"different partition counts: \[4, 8\]"):
        load_topics(file)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("cleanup: compact", "cleanup: shred"),
        ("owner: producers", "owner: nobody"),
        ("retention_days: 7", "retention_dyas: 7"),
        ("partitions: 4", "partitions: many"),
        ("partitions: 4", "partitions: 0"),
        ("retention_days: 7", "retention_days: 0"),
    ],
)
def test_an_entry_that_is_no_topic_is_refused(line: str, instead: str, tmp_path: Path) -> None:
    text = topics.TOPICS_FILE.read_text()
    assert line in text
    file = tmp_path / "topics.yaml"
    file.write_text(text.replace(line, instead, 1))
    with pytest.raises(ValidationError):
        load_topics(file)
