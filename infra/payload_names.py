"""Which payloads a learner's checkpoint names: patterns of addresses, and columns with what each is filled from.

A checkpoint remembers a hundred thousand episodes in columns (`learner.episode_index`), so no address stands in it
as it is. What the learner writes, and what `sop gc` finds in it, is here.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

COLUMN = "episodes."
"""Before the names of the index's columns among a checkpoint's tensors."""

METADATA_KEY = "sop"
"""Of the one JSON document in a safetensors file of ours."""

_LENGTH = struct.Struct("<Q")


def pattern_of(uri: str, episode_id: str, revision: int, sha256: str) -> str:
    """A payload's address without what is known of its episode anyway: the same for most episodes of a bucket."""
    folder, _, name = uri.rpartition("/")
    name = name.replace(sha256, "\0s").replace(f"{revision}-\0s", "\0r-\0s")
    return folder.replace(episode_id, "\0i") + "/" + name if folder else uri


def address(pattern: str, episode_id: str, revision: int, sha256: str) -> str:
    """The address that `pattern_of` made a pattern of."""
    return pattern.replace("\0i", episode_id).replace("\0r", str(revision)).replace("\0s", sha256)


def document_in(data: bytes) -> Any:
    """The JSON document of a safetensors file of ours.

    Raises:
        KeyError, ValueError, struct.error: it has none.
    """
    (length,) = _LENGTH.unpack_from(data)
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    return json.loads(header["__metadata__"][METADATA_KEY])


def payloads_in(checkpoint: bytes) -> Iterator[str]:
    """Addresses of the payloads that a checkpoint names; none of what is no checkpoint of this software's."""
    try:
        tensors = safetensors.numpy.load(checkpoint)
        index = document_in(checkpoint)["core"]["index"]
        patterns, odd = list(index["uris"]), {int(row): str(name) for row, name in index["odd"]}
        names = ("ids", "revisions", "digests", "uris")
        ids, revisions, digests, codes = (tensors[COLUMN + name] for name in names)
    except (SafetensorError, struct.error, KeyError, TypeError, ValueError):
        return
    for row, (code, revision) in enumerate(zip(codes.tolist(), revisions.tolist(), strict=True)):
        episode_id = odd[row] if row in odd else str(uuid.UUID(bytes=ids[row].tobytes()))
        yield address(patterns[code], episode_id, revision, digests[row].tobytes().hex())
