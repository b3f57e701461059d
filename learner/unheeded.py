"""Settings by task that no task of the line heeds: a name that is written wrong shall not go unnoticed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from infra.settings import LearnerSettings

BY_TASK = ("task_weights", "recap_positive_shares")

_log = structlog.get_logger(__name__)


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
