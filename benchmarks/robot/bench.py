"""What the parts of `make bench-robot` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.materializer.report import Report
from infra.local.stack import Stack
from infra.settings import Settings


@dataclass
class Bench:
    """Servers, a folder on a disk, how long to measure, and where to tell what was found."""

    settings: Settings
    stack: Stack
    folder: Path
    options: argparse.Namespace
    report: Report = field(default_factory=Report)


Part = Callable[[Bench], list[str]]
"""Measures, tells, and returns in words which targets were missed."""
