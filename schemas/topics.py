"""`topics.yaml`, read and checked. `TOPICS` is what every process goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

TOPICS_FILE = Path(__file__).parent / "topics.yaml"

ROBOT_STEPS = "robot-steps"
ROBOT_INTERVENTIONS = "robot-interventions"
ROBOT_EPISODES = "robot-episodes"
ROBOT_STATUS = "robot-status"
POLICY_ACTIVATIONS = "policy-activations"
EPISODE_LABELS = "episode-labels"
TRAINING_EPISODES = "training-episodes"
TRAINING_PROGRESS = "training-progress"
TRAINING_LINEAGE = "training-lineage"
POLICY_VERSIONS = "policy-versions"
POLICY_ROLLOUTS = "policy-rollouts"
DEAD_LETTERS = "dead-letters"

ROBOT_TOPICS = (ROBOT_STEPS, ROBOT_INTERVENTIONS, ROBOT_EPISODES)
"""The topics over which a robot's sequence is gapless."""

EPISODE_TOPICS = (*ROBOT_TOPICS, EPISODE_LABELS)
"""All that makes episodes: what the materializer reads, each partition number in all of them."""

INDEX_TOPICS = (
    TRAINING_EPISODES,
    POLICY_VERSIONS,
    POLICY_ROLLOUTS,
    POLICY_ACTIVATIONS,
    TRAINING_PROGRESS,
    TRAINING_LINEAGE,
    ROBOT_STATUS,
    DEAD_LETTERS,
)
"""What ends up in ClickHouse."""


class Topic(BaseModel):
    """One topic: who owns it, what it carries, and for how long. `event` None means raw bytes.

    max_record_bytes: largest record, as compressed, that brokers take there, whatever they take elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    owner: Literal["producers", "consumers", "learner", "operators"]
    key: str
    event: str | None
    partitions: int = Field(ge=1)
    cleanup: Literal["delete", "compact"]
    retention_days: int | None = Field(gt=0)
    timestamp: Literal["LogAppendTime", "CreateTime"]
    co_partitioned: bool
    max_record_bytes: int = Field(gt=0)
    description: str

    @property
    def subject(self) -> str:
        """Name of the topic's value schema in the registry (TopicNameStrategy)."""
        return f"{self.name}-value"


def load_topics(path: Path = TOPICS_FILE) -> dict[str, Topic]:
    """Topics by name.

    Raises:
        pydantic.ValidationError: an entry is not a topic.
        ValueError: topics that must share their partitions do not.
    """
    document = yaml.safe_load(path.read_text())
    defaults = document["defaults"]
    topics = {name: Topic(name=name, **{**defaults, **entry}) for name, entry in document["topics"].items()}
    counts = {topic.partitions for topic in topics.values() if topic.co_partitioned}
    if len(counts) > 1:
        raise ValueError(f"co-partitioned topics have different partition counts: {sorted(counts)}")
    return topics


TOPICS = load_topics()
