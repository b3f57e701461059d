"""`sop learn` that kills itself with SIGKILL just before a call.  python -m ...crash CALL COUNT [COMMAND ...]

CALL is an effect, or a step on the way to one; COUNT says which time. COMMAND: another one than `sop learn`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from infra.settings import load_settings
from learner.checkpoint import CheckpointStore
from learner.core import TrainingCore
from learner.journal import Journal
from learner.publisher import Publisher
from learner.train import run

CALLS: dict[str, tuple[type[Any], str]] = {
    "checkpoint": (CheckpointStore, "save"),
    "announcement": (Publisher, "announce"),
    "pruning": (CheckpointStore, "prune"),
    "journal": (Journal, "append"),
    "admission": (TrainingCore, "admit"),
    "update": (TrainingCore, "update"),
    "seal": (Journal, "seal"),
    "turn": (Journal, "turn"),
    "taking over": (Journal, "take_over"),
}


def die_before(owner: type[Any], name: str, count: int) -> None:
    original: Callable[..., Any] = getattr(owner, name)
    left = count

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, call)


if __name__ == "__main__":
    import threading

    die_before(*CALLS[sys.argv[1]], int(sys.argv[2]))
    if sys.argv[3:]:
        import sop

        sop.app(sys.argv[3:])
    run(load_settings(), threading.Event())
