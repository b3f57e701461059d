"""Whether anybody has heard of the robots that an operator names: a slip there would be told to nobody."""

from __future__ import annotations

import time
from collections.abc import Iterable

from infra.errors import InfraError
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.policies.announced import record_key
from infra.policies.names import likely_first
from infra.settings import Settings
from schemas.topics import ROBOT_STATUS

# Seconds: of a large fleet's heartbeats more may be there than anybody wants to wait for.
_LONGEST = 10.0


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
    others = {name: f"there are {likely_first(name, known)}" if known else "nor was any other" for name in missing}
    return [f"note: no robot {name} was ever heard of; {others[name]}" for name in missing]
