"""Whether anybody has heard of the robots that an operator names: a slip there would be told to nobody."""

from __future__ import annotations

import time
from collections.abc import Iterable
from difflib import get_close_matches

from infra.errors import InfraError
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.policies.announced import record_key
from infra.settings import Settings
from schemas.topics import ROBOT_STATUS

# Seconds: of a large fleet's heartbeats more may be there than anybody wants to wait for.
_LONGEST = 10.0
_NAMED = 8


def unheard_of(settings: Settings, robots: Iterable[str]) -> list[str]:
    """Warnings about those that never sent a heartbeat, one line each; none where that cannot be learned soon."""
    missing, known = dict.fromkeys(robots), set[str]()
    try:
        reader = LogReader(settings.kafka, "policies-robots")
    except InfraError:
        return []
    until = time.monotonic() + _LONGEST
    try:
        for message in reader.read_to_end(all_partitions(reader, [ROBOT_STATUS]), _LONGEST):
            name = record_key(message)
            known.add(name)
            missing.pop(name, None)
            if not missing or time.monotonic() > until:
                return []
    except InfraError:
        return []
    finally:
        reader.close()
    return [f"note: no robot {name} was ever heard of; {_others(name, known)}" for name in missing]


def _others(name: str, known: set[str]) -> str:
    """The known ones, those with a similar name first."""
    if not known:
        return "nor was any other"
    near = get_close_matches(name, known, _NAMED)
    named = [*near, *sorted(known - set(near))][:_NAMED]
    more = f" and {len(known) - len(named)} more" if len(known) > len(named) else ""
    return f"there are {', '.join(named)}{more}"
