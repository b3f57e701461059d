"""What decides whether two machines compute the same bits: processor, its instruction sets, and the libraries."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch


def fingerprint() -> str:
    """One line; machines of the same line are taken to be of the same kind."""
    capability = torch.backends.cpu.get_cpu_capability()
    parts = [platform.machine(), _processor(), capability, f"torch {torch.__version__}", f"numpy {np.__version__}"]
    return " · ".join(part for part in parts if part)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(names, platform.processor())
