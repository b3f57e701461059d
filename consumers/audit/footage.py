"""Objects under `frames/`, against the episodes that refer to them.

An announcement says how many objects its episode's cameras filled. As long as the bucket holds so many, nothing is
looked up; else the payload says which they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from consumers.audit.announced import Episode
from consumers.audit.findings import Finding, Kind, Where
from consumers.footage import uris
from consumers.payload import PayloadUnreadable, read_facts
from infra.errors import ObjectMissing
from infra.object_store import Entry, ObjectStore
from schemas.events import FrameSegment

FOLDER = "frames/"

_KEY = re.compile(r"frames/([0-9a-f-]{36})/([0-9a-f]{64})\.\w+")


@dataclass(frozen=True, slots=True)
class Stored:
    """Objects of one episode's cameras."""

    episode_id: str
    entries: tuple[Entry, ...]


def episode_of(key: str) -> str | None:
    """Episode whose frames an object holds; None when its name is none of ours."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def by_episode(entries: Iterable[Entry]) -> Iterator[Stored]:
    """A listing in the order of its keys, episode by episode; names that are not ours go by."""
    for episode_id, group in groupby(entries, lambda entry: episode_of(entry.key)):
        if episode_id is not None:
            yield Stored(episode_id, tuple(group))


def referred(episode: Episode, objects: ObjectStore) -> dict[str, FrameSegment] | None:
    """Segments by key that an episode's newest revision refers to; None when its payload cannot be read.

    Keys of another bucket are left out.
    """
    if not episode.newest.key:
        return None  # in another bucket
    try:
        facts = read_facts(objects.get(episode.newest.key))
    except (ObjectMissing, PayloadUnreadable):
        return None
    mine = objects.uri("")
    return {
        uri.removeprefix(mine): segment for uri, segment in uris(facts.boundaries).items() if uri.startswith(mine)
    }


def missing(episode: Episode, key: str, segment: FrameSegment) -> Finding:
    """Frames that an episode refers to are not there."""
    return _finding(Kind.MISSING, episode, key, f"{segment.frame_count} frames are referred to, and not there")


def wrong(episode: Episode, key: str, text: str) -> Finding:
    """Frames are not what was recorded."""
    return _finding(Kind.WRONG, episode, key, text)


def orphan(entry: Entry, episode_id: str) -> Finding:
    """Nobody refers to these frames."""
    return Finding(
        Kind.ORPHANED,
        Where.FRAMES,
        entry.key,
        f"no payload refers to it; harmless, `sop gc` removes it ({entry.size} bytes, stored "
        f"{entry.modified:%Y-%m-%d %H:%M} UTC)",
        episode_id=episode_id,
        key=entry.key,
    )


def _finding(kind: Kind, episode: Episode, key: str, text: str) -> Finding:
    return Finding(
        kind,
        Where.FRAMES,
        key,
        f"{text}; restore it from a backup: no robot sends it again. Without it these frames cannot be read, all "
        f"else of episode {episode.episode_id} can",
        episode_id=episode.episode_id,
        revision=episode.newest.number,
        key=key,
    )
