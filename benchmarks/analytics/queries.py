"""What dashboards ask; `queries.yaml` beside this file has the questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

ALL_MS, ONE_TASK_MS = 1000, 200
"""Targets: of any dashboard query, and of those about one task or one episode."""


@dataclass(frozen=True)
class Question:
    """`view` and `plain` give the same rows, in any order."""

    name: str
    view: str
    plain: str
    one_task: bool = False

    @property
    def target_ms(self) -> int:
        """How long it may take."""
        return ONE_TASK_MS if self.one_task else ALL_MS


QUESTIONS = [Question(**entry) for entry in yaml.safe_load(Path(__file__).with_name("queries.yaml").read_text())]
