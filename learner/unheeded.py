"""Settings that a line does not heed: nobody shall think that it does."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from infra.settings import LearnerSettings
from learner.policies.base import PolicySpec

BY_TASK = ("task_weights", "recap_positive_shares")
FIXED = ("architecture", "hidden", "chunk", "cameras")
"""Settings that a line has from its beginning."""

_log = structlog.get_logger(__name__)


def say_what_is_fixed(settings: LearnerSettings, spec: PolicySpec) -> None:
    """Warn of settings that are others than the line's own."""
    if others := [name for name in FIXED if getattr(settings, name) != getattr(spec, name)]:
        _log.warning(
            "settings_not_heeded",
            settings=others,
            reason="they were fixed when the line began; another line (SOP_LEARNER__POLICY) may have others",
        )


def say_unknown_tasks(settings: LearnerSettings, tasks: Sequence[str]) -> None:
    """Warn once of tasks that settings name and the line, which has these, does not know."""
    unknown = {name: sorted(set(getattr(settings, name)) - set(tasks)) for name in BY_TASK}
    if any(unknown.values()):
        _log.warning(
            "settings_not_heeded",
            settings=[name for name, missed in unknown.items() if missed],
            tasks=sorted({task for missed in unknown.values() for task in missed}),
            reason=f"the line has no such task; it has {', '.join(tasks)}",
        )
