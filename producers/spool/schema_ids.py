"""Schema ids, looked up in a thread beside the publisher: a registry that is away holds up nothing else."""

from __future__ import annotations

import threading

from infra.errors import InfraError
from infra.registry import Registry
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.recovery import writer_schema
from producers.spool.segment import Kind
from schemas.errors import SchemaError

_PAUSE = 1.0


class RegistryIds:
    """Implements `publisher.SchemaIds` by the registry, asked again until it answers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[Kind, int] = {}
        self._wanted: set[Kind] = set()
        self._error: str | None = None
        self._work = threading.Condition()
        self._wanted.update(NEWEST_KINDS.values())  # those of this version will be asked for
        threading.Thread(target=self._look_up, name="schema-ids", daemon=True).start()

    def find(self, kind: Kind) -> int | None:
        """Id of a schema; asking for an unknown one has it looked up."""
        found = self._found.get(kind)
        if found is None:
            with self._work:
                self._wanted.add(kind)
                self._work.notify()
        return found

    def error(self) -> str | None:
        """Why an id is not known; None when none is missing."""
        return self._error

    def _look_up(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: bool(self._wanted))
                wanted = list(self._wanted)
            for kind in wanted:
                try:
                    self._found[kind] = self._registry.id_of(kind.topic, writer_schema(kind))
                except (InfraError, SchemaError) as error:
                    self._error = f"the schema registry: {error}"
                    with self._work:
                        self._work.wait(_PAUSE)
                    break
                with self._work:
                    self._wanted.discard(kind)
                self._error = None
