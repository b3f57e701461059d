"""A process that keeps its memory does not ask the system for the same pages again."""

from __future__ import annotations

import subprocess
import sys

CHURN = """
import resource, sys
from infra.heap import keep_memory
if sys.argv[1] == "kept":
    keep_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    b"x" * (48 * 2**20)
before = faults()
for _ in range(4):
    b"x" * (48 * 2**20)
print(faults() - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", CHURN, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_that_was_freed_is_used_again_and_not_mapped_anew() -> None:
    assert faults("kept") * 10 < faults("given back")
