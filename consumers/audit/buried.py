"""Dead letters, folded: which records are kept there, and whose events they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from consumers.audit.findings import Finding, Kind, Where
from consumers.dead_letters import Reason, place_of
from consumers.ranges import RangeSet
from infra.kafka import Message
from schemas.topics import DEAD_LETTERS, EPISODE_TOPICS

Place = tuple[str, int]
"""Topic and partition number."""

Owner = tuple[str, str, int]
"""Episode, robot and boot epoch of an event."""

STAND_BESIDE = {Reason.CONFLICT.value, Reason.FOREIGN_EPISODE.value, Reason.FOREIGN_KEY.value}
"""Reasons for which a dead letter may share its sequence with another event, and then does not stand for it."""


class Buried:
    """Records on dead-letters, as offsets by their own topic and partition number."""

    def __init__(self) -> None:
        self.places: dict[Place, RangeSet] = defaultdict(RangeSet)
        self.sequences: dict[Owner, RangeSet] = defaultdict(RangeSet)
        """Events that dead letters stand for."""
        self.beside: dict[Owner, RangeSet] = defaultdict(RangeSet)
        """Sequences of dead letters that may stand beside another event. Where the episode lists them as rejected,
        there is no other."""
        self.letters: dict[Owner, dict[int, dict[int, str]]] = defaultdict(dict)
        """Of `sequences`, hashes of the bytes with their reason, by sequence; about 0.4 KB each."""
        self.rows: dict[Place, RangeSet] = defaultdict(RangeSet)
        """Of those, the ones that must be in ClickHouse by now."""
        self.oldest_ms: dict[int, int] = {}
        self.newest_ms: dict[int, int] = {}
        """Append times by partition number of dead-letters."""

    def add(self, place: Place, offset: int, at: tuple[int, int], appended_ms: int) -> Iterator[Finding]:
        """Take in a dead letter; what is wrong with it.

        Args:
            place: where its record was.
            offset: the record's offset there.
            at: partition number and offset of the dead letter itself.
            appended_ms: when it was appended, milliseconds since the epoch.
        """
        self.oldest_ms.setdefault(at[0], appended_ms)
        self.newest_ms[at[0]] = max(appended_ms, self.newest_ms.get(at[0], 0))
        # The index writes its own at least once; those of the materializer are in the transaction.
        if offset in self.places[place] and place[0] in EPISODE_TOPICS:
            yield Finding(
                Kind.DOUBLED,
                Where.DEAD_LETTERS,
                f"{place[0]}[{place[1]}]@{offset}",
                f"is on dead-letters twice, again at {DEAD_LETTERS}[{at[0]}]@{at[1]}. A log cannot be mended",
                topic=place[0],
                partition=place[1],
                offset=offset,
            )
        self.places[place].add(offset)

    def claim(
        self, owner: Owner, sequence: int, reason: str, value: bytes | None, *, at: tuple[Place, int]
    ) -> Iterator[Finding]:
        """A dead letter, taken in by `add`, holds this event; what is wrong with that.

        Args:
            owner: whose it is.
            sequence: which it is.
            reason: why it is a dead letter.
            value: the record's bytes.
            at: where the record was: topic and partition number, and offset.
        """
        if reason in STAND_BESIDE:
            self.beside[owner].add(sequence)
            return
        self.sequences[owner].add(sequence)
        kept = self.letters[owner].setdefault(sequence, {})
        (topic, partition), offset = at
        if hash(value) in kept:
            yield Finding(
                Kind.DOUBLED,
                Where.DEAD_LETTERS,
                f"{topic}[{partition}]@{offset}",
                f"sequence {sequence} of episode {owner[0]} robot {owner[1]} boot {owner[2]} came twice, and both "
                f"records are on dead-letters ({reason}). A log cannot be mended",
                episode_id=owner[0],
                topic=topic,
                partition=partition,
                offset=offset,
            )
        kept[hash(value)] = reason

    def has(self, place: Place, offset: int) -> bool:
        """Whether this record is a dead letter."""
        return place in self.places and offset in self.places[place]

    def has_event(self, owner: Owner, sequence: int, *, rejected: bool) -> bool:
        """Whether a record that holds this event is a dead letter; `rejected`: its episode says that one is."""
        if owner in self.sequences and sequence in self.sequences[owner]:
            return True
        return rejected and owner in self.beside and sequence in self.beside[owner]


def buried_in(batches: Iterable[Sequence[Message]]) -> Buried:
    """Dead letters, as far as they say which records they hold."""
    found = Buried()
    for message in chain.from_iterable(batches):
        try:
            topic, partition, offset = place_of(message)
        except ValueError:
            continue  # `sop reconcile` names it
        at = int(message.partition() or 0), int(message.offset() or 0)
        for _ in found.add((topic, partition), offset, at, message.timestamp()[1]):
            pass  # likewise
    return found


def compare_rows(expected: dict[Place, RangeSet], rows: dict[Place, RangeSet]) -> Iterator[Finding]:
    """Dead letters that must have a row by now, and have none."""
    for place, offsets in sorted(expected.items()):
        for low, high in offsets.without(rows.get(place, RangeSet())):
            for offset in range(low, high + 1):
                yield Finding(
                    Kind.MISSING,
                    Where.DEAD_LETTER_ROWS,
                    f"{place[0]}[{place[1]}]@{offset}",
                    "is on dead-letters and not in ClickHouse; --repair inserts it",
                    topic=place[0],
                    partition=place[1],
                    offset=offset,
                )
