"""Objects of the bucket against the announcements. Pure: a listing in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from consumers.audit.announced import Announcements, Episode, episode_of
from consumers.audit.findings import Finding, Kind, Where
from consumers.tombstone import is_tombstone
from infra.object_store import Entry


def compare_listing(
    announcements: Announcements, entries: Iterable[Entry], young_after: datetime
) -> Iterator[Finding]:
    """Objects that are not as announced, and those that no announcement names.

    Objects of newest revisions that were found are marked as `stored`. An object that was stored after
    `young_after` may be about to be announced: it is no orphan yet.
    """
    for entry in entries:
        if is_tombstone(entry.key):
            continue  # tombstones.py judges it by what it says
        named = episode_of(entry.key)
        if named is None:
            if entry.modified < young_after:
                yield _orphan(entry, None, "its name is no payload's; nothing of ours will remove it")
            continue
        episode = announcements.episodes.get(named[0])
        revision = episode.revisions.get(named[1]) if episode else None
        if episode is not None and revision is not None and revision.key == entry.key:
            if revision is not episode.newest:
                continue  # an older revision: true, unread, collected by `sop gc`
            episode.stored = True
            if entry.size != revision.size:
                yield wrong_object(episode, f"has {entry.size} bytes, {revision.size} were announced")
        elif entry.modified < young_after:
            yield _orphan(entry, named, "no announcement names it; harmless, `sop gc` removes it")


def missing_objects(announcements: Announcements, since: float) -> Iterator[Episode]:
    """Episodes whose newest object was not in the listing, announced at `since` (seconds) or later."""
    for episode in announcements.episodes.values():
        if not episode.stored and episode.newest.materialized_at >= since:
            yield episode


def missing_object(episode: Episode) -> Finding:
    """The object of an episode's newest revision is not there."""
    return _finding(Kind.MISSING, episode, "announced, and not there")


def wrong_object(episode: Episode, text: str) -> Finding:
    """The object of an episode's newest revision is not what was announced."""
    return _finding(Kind.WRONG, episode, text)


def _finding(kind: Kind, episode: Episode, text: str) -> Finding:
    newest = episode.newest
    return Finding(
        kind,
        Where.OBJECTS,
        f"{newest.key or 'in another bucket'} of episode {episode.episode_id} revision {newest.number}",
        f"{text}; --repair rebuilds it while the robot topics hold its events, else restore it from a backup",
        episode_id=episode.episode_id,
        revision=newest.number,
        key=newest.key,
        topic="training-episodes",
        partition=newest.partition,
        offset=newest.offset,
    )


def _orphan(entry: Entry, named: tuple[str, int] | None, text: str) -> Finding:
    return Finding(
        Kind.ORPHANED,
        Where.OBJECTS,
        entry.key,
        f"{text} ({entry.size} bytes, stored {entry.modified:%Y-%m-%d %H:%M} UTC)",
        episode_id=named[0] if named else None,
        revision=named[1] if named else None,
        key=entry.key,
    )
