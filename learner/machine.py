"""What decides whether two machines compute the same bits: processor, its instruction sets, and the libraries."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

_BETWEEN = " · "
_LIBRARIES = ("torch", "numpy", "av")


def fingerprint(*, seeing: bool = True) -> str:
    """One line, for `same_kind`. `seeing`: with PyAV, whose FFmpeg decodes what a policy with cameras sees."""
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [platform.machine(), _processor(), capability, f"torch {torch.__version__}", f"numpy {np.__version__}"]
    parts += [f"av {version('av')}"] if seeing else []
    return _BETWEEN.join(part for part in parts if part)


def same_kind(one: str, other: str) -> bool:
    """Whether two machines are taken to compute the same bits. A library that one does not name does not count."""
    ours, theirs = _parts(one), _parts(other)
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def _parts(line: str) -> dict[str, str]:
    """Versions by library, and under the empty name what is left: the processor."""
    parts = line.split(_BETWEEN)
    named = {part.partition(" ")[0]: part for part in parts if part.partition(" ")[0] in _LIBRARIES}
    return {**named, "": _BETWEEN.join(part for part in parts if part not in named.values())}


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(names, platform.processor())
