"""docs/training.md: its table is that of the settings, and its algorithm can be trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.sections import LearnerSettings
from learner.algorithms.gradient import GRADIENT_NORM, LEARNING_RATE
from learner.algorithms.recap import POSITIVE_SHARE
from learner.board import curves
from learner.policies.chunked_network import ChunkedNetwork
from learner.present import verdict
from learner.reproduce import Replayed
from schemas.events import EpisodeSource
from tests.learner.algorithms.test_hg_dagger import batch
from tests.learner.synthetic import make_episode
from tests.learner.test_board import report
from tests.learner.test_replay import SPEC

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_the_table_has_every_setting_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", GUIDE, re.MULTILINE))
    settings = LearnerSettings()
    wanted = {name.upper() for name in LearnerSettings.model_fields if not name.startswith("simulated_")}
    assert set(told) == wanted
    for name, text in told.items():
        value: Any = getattr(settings, name.lower())
        value = list(value) if isinstance(value, tuple) else value
        assert text == ("unset" if value is None else value if isinstance(value, str) else json.dumps(value)), name


def test_the_example_is_an_algorithm_that_trains() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own document
    algorithm: Any = names["LongCorrections"](ChunkedNetwork(SPEC, 0), seed=1, ema_half_life=0.0)
    short, long = (make_episode(n, human=(2, 2 + n), steps=20).episode for n in (4, 12))
    assert not algorithm.select(short).drawable.any()
    np.testing.assert_array_equal(algorithm.select(long).drawable, long.frames.human)
    shown = make_episode(3, source=EpisodeSource.DEMONSTRATION).episode
    assert algorithm.select(shown).drawable.all()
    algorithm.begin_phase(1e-3)
    made = batch()
    assert algorithm.update(made).loss > algorithm.update(made).loss


@pytest.mark.parametrize(
    ("trained", "there", "difference", "code"),
    [("a", "x", 0.0, 0), ("b", "x", 0.5, 1), ("b", "y", 0.001, 0), ("b", "y", 0.5, 1), ("b", "x", None, 1)],
)
def test_what_a_replay_says_is_explained(trained: str, there: str, difference: float | None, code: int) -> None:
    done = Replayed(7, "a", trained, (there,), "x", difference, 100)
    rows = re.findall(r"^\| (.+?) \| (\d) \|", GUIDE, re.MULTILINE)
    said = verdict(done)
    found = [int(told) for text, told in rows if all(part.strip() in said for part in text.split("…"))]
    assert found == [code] == [0 if done.good else 1]


def test_the_curves_are_named() -> None:
    paragraph = re.search(r"^Curves are (.*?)\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    told = {name.replace("<task>", "push").partition("/<")[0] for name in re.findall(r"`(.+?)`", paragraph[1])}
    metrics = {f"metrics/{name}" for name in (LEARNING_RATE, GRADIENT_NORM, POSITIVE_SHARE)}
    drawn = {name.removesuffix("/online").removesuffix("/offline") for name, _ in curves(report(1, 0.1))}
    assert told == drawn - {"data/simulated_seconds"} | metrics
