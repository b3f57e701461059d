"""Schema ids, looked up in a thread beside the publisher: a registry that is away holds up nothing else.

What was found once is kept on the disk, so that a robot that was on line before sends without the registry. It is
compared when the registry answers again; that of another registry (by its address) does not count.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ConfigDict

from infra.errors import InfraError
from infra.files import write_atomically
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.recovery import writer_schema
from producers.spool.segment import Kind
from schemas.codec import AvroSchema
from schemas.errors import SchemaError

_PAUSE = 1.0

_log = structlog.get_logger(__name__)


class IdLookup(Protocol):
    """What is needed of `infra.registry.Registry`."""

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        """Id of a schema on a topic."""


class _Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: str
    ids: dict[str, int]


class KnownIds:
    """Ids on the disk, by topic and schema; a file that cannot be read is as good as none."""

    def __init__(self, path: Path, registry: str) -> None:
        """Ids of a registry, by its address, that were kept at `path`."""
        self._path = path
        self._registry = _place(registry)
        self._ids: dict[str, int] = {}
        try:
            known = _Known.model_validate_json(path.read_bytes())
            place = _place(known.registry)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.warning("schema_ids_unreadable", path=str(path), error=str(error).splitlines()[0])
            return
        if place == self._registry:
            self._ids = dict(known.ids)
        if known.registry != place:
            self._write(self._ids)  # it may hold a password, which an address could carry once

    def find(self, kind: Kind) -> int | None:
        """None where nobody knew it before."""
        return self._ids.get(_name(kind))

    def keep(self, found: Mapping[Kind, int]) -> None:
        """Write them down; where that fails the next boot asks again."""
        ids = self._ids | {_name(kind): number for kind, number in found.items()}
        if ids == self._ids:
            return
        self._write(ids)
        self._ids = ids

    def _write(self, ids: dict[str, int]) -> None:
        known = _Known(registry=self._registry, ids=ids)
        try:
            write_atomically(self._path, known.model_dump_json(indent=1))
        except OSError as error:
            _log.warning("schema_ids_not_kept", path=str(self._path), error=str(error))


class RegistryIds:
    """Implements `publisher.SchemaIds` by the disk, and by the registry, which is asked until it answers."""

    def __init__(self, registry: IdLookup, known: KnownIds) -> None:
        self._registry = registry
        self._known = known
        self._found = {k: n for k in NEWEST_KINDS.values() if (n := known.find(k)) is not None}
        self._wanted: set[Kind] = set(NEWEST_KINDS.values())  # those that are known are compared
        self._error: str | None = None
        self._work = threading.Condition()
        threading.Thread(target=self._look_up, name="schema-ids", daemon=True).start()

    def find(self, kind: Kind) -> int | None:
        """Id of a schema; asking for an unknown one has it looked up."""
        found = self._found.get(kind)
        if found is None:
            with self._work:
                self._wanted.add(kind)
                self._work.notify()
            found = self._known.find(kind)
            if found is not None:
                self._found[kind] = found
        return found

    def error(self) -> str | None:
        """Why the registry does not say an id; None when all were compared."""
        return self._error

    def _look_up(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: bool(self._wanted))
                wanted = list(self._wanted)
            for kind in wanted:
                try:
                    number = self._registry.id_of(kind.topic, writer_schema(kind))
                except (InfraError, SchemaError) as error:
                    self._error = f"the schema registry: {error}"
                    with self._work:
                        self._work.wait(_PAUSE)
                    break
                before = self._found.get(kind)
                if before is not None and before != number:
                    _log.error("schema_id_changed", topic=kind.topic, record=kind.record, was=before, now=number)
                self._known.keep({kind: number})  # before it is used: who sent once knows it at the next boot
                self._found[kind] = number
                with self._work:
                    self._wanted.discard(kind)
                self._error = None


def _place(address: str) -> str:
    """Hosts and paths of an address, or of several: what says which registry it is, and nothing secret.

    Raises:
        ValueError: it is no address.
    """
    parts = [urlsplit(part.strip()) for part in address.split(",")]
    return ",".join(f"//{part.netloc.rpartition('@')[2]}{part.path.rstrip('/')}" for part in parts)


def _name(kind: Kind) -> str:
    return f"{kind.topic} {kind.record} v{kind.version} {hashlib.sha256(kind.schema.encode()).hexdigest()[:16]}"
