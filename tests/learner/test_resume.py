from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from infra.settings import LearnerSettings
from learner.checkpoint import Checkpoint
from learner.errors import CheckpointMissing, OtherAlgorithm
from learner.resume import Way, from_the_beginning, resume
from learner.set_aside import SetAside
from schemas.events import PolicyVersion

TRAINED = PolicyVersion(
    policy="arm",
    version=3,
    artifact_uri="s3://sop/policies/arm/3",
    sha256="0" * 64,
    size_bytes=1,
    algorithm="hg-dagger",
    learner_step=10,
    episodes_admitted=0,
    offsets=(),
    config="{}",
    code_version="0",
    published_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("algorithm", ["recap", "bc"])
def test_a_line_is_not_trained_on_with_another_algorithm(algorithm: Any) -> None:
    settings = LearnerSettings(policy="arm", algorithm=algorithm)
    nothing: Any = None  # it is refused before any of it is looked at
    with pytest.raises(OtherAlgorithm, match=f"with hg-dagger, not with {algorithm}.*sop backfill --policy NEW"):
        resume(Way(settings, {3: TRAINED}, nothing, nothing), Checkpoint(TRAINED, {}, {}, SetAside()))
    with pytest.raises(OtherAlgorithm, match=f"with hg-dagger, not with {algorithm}"):
        from_the_beginning(Way(settings, {3: TRAINED}, nothing, nothing), CheckpointMissing("none"))
