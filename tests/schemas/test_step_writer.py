from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given

from schemas.codec import encode, latest
from schemas.events import Event, Step
from schemas.step_writer import StepWriter
from tests.schemas.strategies import events_of

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


def test_the_writer_writes_the_newest_version() -> None:
    assert latest(Step.record).version == StepWriter.VERSION


@given(step=events_of(Step.record))
def test_a_step_is_written_as_the_codec_writes_it(step: Event) -> None:
    assert isinstance(step, Step)
    captured_at = (step.captured_at - _UNIX) // timedelta(microseconds=1)
    body = StepWriter(step.episode_id, step.robot_id, step.boot_epoch).body(
        step.sequence,
        captured_at,
        step.index,
        step.actor,
        step.policy_version,
        step.state,
        step.action,
        step.proposed_action,
        step.reward,
    )
    assert body == encode(step)
