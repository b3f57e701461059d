"""What a payload says of itself without its steps: names of its vectors' elements, and its columns."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pydantic import ValidationError

from consumers.facts import EpisodeFacts
from consumers.payload import METADATA_KEY
from infra.errors import InfraError
from infra.object_store import ObjectStore

_TAIL_BYTES = 1 << 16
"""Read at once from the end, where Parquet keeps what we want; it has been a few kB."""

_STEP_COLUMNS = {
    *("index", "sequence", "captured_at", "actor", "policy_version"),
    *("state", "action", "proposed_action", "reward"),
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Footer:
    """names: of the elements of each vector, by feature. others: columns besides those of every step: cameras."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def footer_of(store: ObjectStore, uri: str, size: int) -> Footer:
    """The footer of a payload of `size` bytes; an empty one if it cannot be read: charts do without names."""
    try:
        with pq.ParquetFile(pa.PythonFile(_Remote(store, store.key(uri), size), mode="r")) as file:
            schema = file.schema_arrow
        facts = EpisodeFacts.model_validate_json((schema.metadata or {})[METADATA_KEY])
    except (InfraError, ValueError, KeyError, OSError, pa.ArrowException, ValidationError) as error:
        _log.warning("footer_unreadable", uri=uri, error=str(error)[:500])
        return Footer()
    return Footer(
        {feature.name: feature.names for feature in facts.features},
        tuple(name for name in schema.names if name not in _STEP_COLUMNS),
    )


class _Remote(io.RawIOBase):
    """An object as a file of which only what is asked for is read; its end is read once."""

    def __init__(self, store: ObjectStore, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0
        self._tail_at = max(0, size - _TAIL_BYTES)
        self._tail = bytes(store.get_range(key, self._tail_at, size - self._tail_at)) if size else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        begin, self._at = self._at, max(end, self._at)
        if begin >= end:
            return b""
        if begin >= self._tail_at:
            return self._tail[begin - self._tail_at : end - self._tail_at]
        return bytes(self._store.get_range(self._key, begin, end - begin))
