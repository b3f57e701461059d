"""The engine's formats by name: what a client sends as one is a name of these, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from infra.local.clickhouse.errors import READONLY, UNKNOWN_FORMAT, QueryError

# Formats that read a file or ask a server that their settings name, and one whose input is SQL.
READER_NEVER = frozenset({
    "avroconfluent", "capnproto", "protobuf", "protobuflist", "protobufsingle", "regexp", "template",
    "templateignorespaces",
})  # fmt: skip
_READER_NEVER_INPUT = READER_NEVER | {"values"}


class Formats:
    """Names of formats, as rows (name, is_input, is_output) of `system.formats` with flags "0" and "1"."""

    def __init__(self, rows: Iterable[Sequence[str]]) -> None:
        found = [(name, takes == "1", gives == "1") for name, takes, gives in rows]
        self._inputs = {name.lower(): name for name, takes, _ in found if takes}
        self._outputs = {name.lower(): name for name, _, gives in found if gives}

    def of_input(self, name: str, *, reader: bool) -> str:
        """Return the format's own spelling.

        Raises:
            QueryError: it is none that data are read in, or not for a reader.
        """
        return _known(self._inputs, name, _READER_NEVER_INPUT if reader else frozenset(), "input")

    def of_output(self, name: str, *, reader: bool) -> str:
        """Return the format's own spelling.

        Raises:
            QueryError: it is none that data are written in, or not for a reader.
        """
        return _known(self._outputs, name, READER_NEVER if reader else frozenset(), "output")


def _known(names: dict[str, str], name: str, refused: frozenset[str], direction: str) -> str:
    key = name.lower()
    if key not in names:
        raise QueryError(UNKNOWN_FORMAT, f"Unknown {direction} format {name[:100]!r}", "UNKNOWN_FORMAT")
    if key in refused:
        raise QueryError(READONLY, f"Format {names[key]} is not for a user who only reads", "READONLY")
    return names[key]
