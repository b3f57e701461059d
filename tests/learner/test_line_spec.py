from __future__ import annotations

import pytest

from infra.settings import LearnerSettings
from learner.errors import UnfitEpisode
from learner.line_spec import base_spec, features_for, kind_of, sees
from schemas.events import Feature
from tests.learner.seen import SIZE, WRIST, see
from tests.learner.synthetic import FEATURES, make_episode

DEPTH = Feature(name="depth", dtype="uint16", shape=(SIZE, SIZE))
FORCE = Feature(name="force", shape=(6,))


def test_a_kind_has_the_cameras_that_are_to_be_seen_and_no_others() -> None:
    blind, seeing = make_episode(1).event, see(2).event
    assert kind_of(blind) == kind_of(seeing)
    assert kind_of(blind, ["wrist"]) != kind_of(seeing, ["wrist"])
    larger = see(3, declared=Feature(name="wrist", dtype="uint8", shape=(64, 64, 3))).event
    assert kind_of(larger, ["wrist"]) != kind_of(seeing, ["wrist"])
    turned = seeing.model_copy(update={"features": seeing.features[::-1]})
    assert kind_of(turned, ["wrist"]) == kind_of(seeing, ["wrist"])


def test_features_lose_cameras_that_nobody_sees_and_nothing_else() -> None:
    features = (WRIST, *FEATURES[::-1], DEPTH, FORCE)
    assert features_for(features, []) == (*FEATURES[::-1], FORCE)
    assert features_for(features, ["wrist"]) == (WRIST, *FEATURES[::-1], FORCE)


def test_what_a_policy_cannot_see_does_not_suffice() -> None:
    assert sees(FEATURES, [])
    assert sees((*FEATURES, WRIST, DEPTH), ["wrist"])
    assert not sees((*FEATURES, WRIST), ["wrist", "top"])
    assert not sees((*FEATURES, DEPTH), ["depth"])


def test_a_line_without_cameras_has_the_spec_that_its_journal_says() -> None:
    """Lines whose journals name cameras that nobody sees keep the bytes that they had."""
    made, settings = see(1), LearnerSettings()
    before = base_spec(settings, (*FEATURES, WRIST), 10.0, [made.episode])
    assert before.features == (*FEATURES, WRIST)
    assert "cameras" not in before.document()
    seeing = LearnerSettings(architecture="flow-transformer", hidden=(8,), cameras=("wrist",))
    spec = base_spec(seeing, (*FEATURES, WRIST), 10.0, [made.episode])
    assert spec.document()["cameras"] == ["wrist"]
    assert spec.camera_shapes == {"wrist": (SIZE, SIZE, 3)}
    with pytest.raises(UnfitEpisode, match="'wrist'"):
        spec.require_fit(FEATURES, 10.0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cameras": ["wrist"]}, "chunked-mlp sees no cameras"),
        ({"cameras": ["a", "a"], "architecture": "flow-transformer"}, "named twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LearnerSettings.model_validate(changes)
