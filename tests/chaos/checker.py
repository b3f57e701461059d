"""The ledger against what is there. Pure, without a line of the system under test.

Words are Jepsen's: *lost write* (acknowledged, and in no newest revision nor on dead-letters), *poll skip* (the
same, for neighbours in one partition: the reader jumped), *duplicate* (one thing twice), *non-monotonic* (a
revision that does not grow). Further: *truncated* (an episode that was whole was not closed as complete), *wrong
payload*, *wrong row*, *stray* (nobody sent it).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.labels import label_anomalies
from tests.chaos.ledger import Copies, Ledger, Place
from tests.chaos.payloads import payload_anomalies
from tests.chaos.readings import Announcement, Letter, Readings
from tests.chaos.robot import DEAD, EITHER, LABELS, LISTED

MARGIN_MS = 1000
"""A pause this close below the timeout proves nothing: the broker stamps a record before it can be read."""


@dataclass
class Verdict:
    """What was found; no anomalies is the promise kept."""

    anomalies: list[tuple[str, str]] = field(default_factory=list)
    whole: int = 0
    revisions: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, what: str) -> None:
        self.anomalies.append((kind, what))

    @property
    def lost(self) -> int:
        return sum(kind in ("lost write", "poll skip") for kind, _ in self.anomalies)

    @property
    def doubled(self) -> int:
        return sum(kind == "duplicate" for kind, _ in self.anomalies)


def check(ledger: Ledger, found: Readings, timeout: float) -> Verdict:
    """Everything that can be said of a run whose topics were read to their ends.

    Args:
        ledger: what was acknowledged.
        found: what is there, of this run's robots only.
        timeout: seconds of silence after which an episode may be closed as it is.
    """
    verdict = Verdict()
    for what in ledger.unknown:
        verdict.add("unknown", f"never acknowledged: {what}")
    newest = _revisions(verdict, found.announcements)
    letters = _letters(verdict, ledger, found.letters)
    whole = _whole(ledger, timeout)
    verdict.whole = len(whole)
    _every_event_in_one_place(verdict, ledger, newest, letters, whole)
    _whole_is_complete(verdict, ledger, found.announcements, whole)
    for kind, what in label_anomalies(ledger, newest, found.announcements, letters):
        verdict.add(kind, what)
    episodes = ledger.episodes()
    for episode_id, announced in newest.items():
        sent = episodes.get(episode_id, [])
        for kind, what in payload_anomalies(announced.datum, sent, found.objects):
            verdict.add(kind, what)
        _sources(verdict, announced, sent)
    _rows(verdict, newest, found)
    return verdict


def spread(ranges: Iterable[dict[str, int]]) -> set[int]:
    """Ranges as a set."""
    return {number for part in ranges for number in range(part["first"], part["last"] + 1)}


def _revisions(verdict: Verdict, stream: list[Announcement]) -> dict[str, Announcement]:
    """The newest revision of each episode, as a reader of the stream keeps it."""
    newest: dict[str, Announcement] = {}
    seen: set[tuple[str, int]] = set()
    for announced in stream:
        datum = announced.datum
        identity = (datum["episode_id"], datum["revision"])
        verdict.revisions[datum["closed_by"]] += 1
        if identity in seen:
            verdict.add("duplicate", f"episode {identity[0]} revision {identity[1]} was announced again")
        seen.add(identity)
        before = newest.get(identity[0])
        if before is not None and before.partition != announced.partition:
            verdict.add("non-monotonic", f"episode {identity[0]} is announced on two partitions")
        if before is not None and datum["revision"] < before.datum["revision"]:
            verdict.add("non-monotonic", f"episode {identity[0]}: {datum['revision']} after a higher revision")
            continue
        newest[identity[0]] = announced
    return newest


def _letters(verdict: Verdict, ledger: Ledger, letters: list[Letter]) -> dict[Place, list[Letter]]:
    """Dead letters by the place of their original; their bytes must be those that were sent."""
    found: dict[Place, list[Letter]] = defaultdict(list)
    for letter in letters:
        copies = ledger.at.get(letter.place)
        if copies is None:
            verdict.add("stray", f"dead letter of {letter.place}, where nothing was sent: {letter.reason}")
            continue
        found[letter.place].append(letter)
        if (letter.key, letter.value) != (copies.event.key, copies.value):
            verdict.add("wrong payload", f"the dead letter of {letter.place} has other bytes than its original")
        if letter.partition != letter.place[1]:
            verdict.add("wrong payload", f"the dead letter of {letter.place} lies on partition {letter.partition}")
        if letter.reason not in copies.event.reasons:
            verdict.add("stray", f"dead letter {letter.place}, {copies.event!r}: {letter.reason}")
    return dict(found)


def _whole(ledger: Ledger, timeout: float) -> set[str]:
    """Episodes of which everything was delivered, without a pause in which they could be closed."""
    found = set()
    for episode_id, sent in ledger.episodes().items():
        bodies = {
            e.event.datum["body"][0]: e.event for e in sent if "body" in e.event.datum and e.event.fate == LISTED
        }
        start, end = bodies.get("sop.EpisodeStarted"), bodies.get("sop.EpisodeEnded")
        if start is None or end is None:
            continue
        if {c.event.sequence for c in sent} != set(range(start.sequence, end.sequence + 1)):
            continue
        # Repetitions keep nothing open.
        moments = sorted(min(c.times) for c in sent)
        longest = max((b - a for a, b in pairwise(moments)), default=0)
        if longest <= timeout * 1000 - MARGIN_MS:
            found.add(episode_id)
    return found


def _every_event_in_one_place(
    verdict: Verdict,
    ledger: Ledger,
    newest: dict[str, Announcement],
    letters: dict[Place, list[Letter]],
    whole: set[str],
) -> None:
    listed = {episode_id: spread(a.datum["sequences"]) for episode_id, a in newest.items()}
    rejected = {episode_id: spread(a.datum["rejected"]) for episode_id, a in newest.items()}
    missing: list[Copies] = []
    for copies in ledger.copies.values():
        event = copies.event
        if event.topic == LABELS:
            continue  # labels.py judges them
        dead = sum(len(letters.get(place, ())) for place in copies.places)
        here = event.counted and event.sequence in listed.get(event.episode_id, ())
        if dead > 1:
            verdict.add("duplicate", f"{event!r} is on dead-letters {dead} times")
        if here and dead:
            verdict.add("duplicate", f"{event!r} is in its episode and on dead-letters")
        strict = event.fate != EITHER or event.episode_id in whole
        if not here and not dead and strict:
            missing.append(copies)
        if here and event.fate == DEAD:
            verdict.add("stray", f"{event!r} cannot be used, and is in its episode")
        # Of an episode that was not whole a part may have been given up before its start came.
        told = event.counted and event.episode_id in whole and event.episode_id in rejected
        if dead and told and event.sequence not in rejected[event.episode_id]:
            verdict.add(
                "wrong payload", f"{event!r} is a dead letter, and its episode does not list it as rejected"
            )
        if dead and event.fate == LISTED and event.episode_id in whole:
            verdict.add("truncated", f"{event!r} of a whole episode is on dead-letters")
    lost = {place for copies in missing for place in copies.places}
    for copies in missing:
        topic, partition, offset = copies.places[0]
        jumped = (topic, partition, offset + 1) in lost or (topic, partition, offset - 1) in lost
        where = f"{topic}[{partition}]@{offset}"
        verdict.add(
            "poll skip" if jumped else "lost write", f"{copies.event!r} {where}, {copies.event.episode_id}"
        )


def _whole_is_complete(verdict: Verdict, ledger: Ledger, stream: list[Announcement], whole: set[str]) -> None:
    revisions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for announced in stream:
        revisions[announced.datum["episode_id"]].append(announced.datum)
    for episode_id in whole:
        for datum in revisions[episode_id]:
            if datum["closed_by"] != "COMPLETE" or datum["missing_count"]:
                what = f"revision {datum['revision']} closed by {datum['closed_by']}"
                verdict.add("truncated", f"episode {episode_id} was whole: {what}")
        # Each further one must be of a label.
        said = [len(datum["labels"]) for datum in revisions[episode_id]]
        if any(b <= a for a, b in pairwise(said)):
            verdict.add("non-monotonic", f"episode {episode_id} was whole, and its revisions have {said} labels")
    known = ledger.episodes().keys()
    for episode_id in revisions.keys() - known:
        verdict.add("stray", f"episode {episode_id} was never sent")
    for episode_id, data in revisions.items():
        sizes = [
            len(spread(datum["sequences"])) + len(spread(datum["rejected"])) + len(datum["labels"])
            for datum in data
        ]
        if any(b <= a for a, b in pairwise(sizes)):
            verdict.add("non-monotonic", f"episode {episode_id}: revisions of {sizes} events do not grow")


def _sources(verdict: Verdict, announced: Announcement, sent: list[Copies]) -> None:
    """Each listed event has a copy within the offsets that the announcement names."""
    spans = {(s["topic"], s["partition"]): (s["first"], s["last"]) for s in announced.datum["source_offsets"]}
    listed = spread(announced.datum["sequences"])
    nowhere = (0, -1)
    for copies in sent:
        if copies.event.sequence not in listed:
            continue
        near = [(spans.get(place[:2], nowhere), place[2]) for place in copies.places]
        if not any(first <= offset <= last for (first, last), offset in near):
            verdict.add("wrong payload", f"{copies.event!r} lies outside of the source offsets of its episode")


_ROW = (
    "revision",
    "robot_id",
    "boot_epoch",
    "payload_uri",
    "payload_sha256",
    "step_count",
    "end",
    "closed_by",
    "success",
    "excluded",
)


def _rows(verdict: Verdict, newest: dict[str, Announcement], found: Readings) -> None:
    """ClickHouse against the stream: one row for each episode, and for each dead letter."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found.episode_rows:
        rows[str(row["episode_id"])].append(row)
    for episode_id, announced in newest.items():
        there = rows.pop(episode_id, [])
        if len(there) != 1:
            verdict.add("wrong row", f"episode {episode_id} has {len(there)} rows")
            continue
        for name in _ROW:
            value = there[0][name]
            value = value.decode() if isinstance(value, bytes) else value
            if value != announced.datum[name]:
                verdict.add("wrong row", f"episode {episode_id}: {name} {value!r}, not {announced.datum[name]!r}")
    for episode_id in rows:
        verdict.add("wrong row", f"a row of episode {episode_id}, which was not announced")
    _intervention_rows(verdict, newest, found.intervention_rows)
    letters = {letter.place: letter for letter in found.letters}
    places = Counter((row["topic"], row["partition"], row["offset"]) for row in found.letter_rows)
    for place in letters.keys() - places.keys():
        verdict.add("wrong row", f"the dead letter of {place} has no row")
    for row in found.letter_rows:
        letter = letters.get((row["topic"], row["partition"], row["offset"]))
        if letter is None or row["value"] != (letter.value or b"") or row["reason"] != letter.reason:
            verdict.add("wrong row", f"the row of dead letter {row['topic']}@{row['offset']} says something else")


def _intervention_rows(verdict: Verdict, newest: dict[str, Announcement], there: list[dict[str, Any]]) -> None:
    """One row for each intervention of a newest revision, and no other."""
    rows = Counter((str(row["episode_id"]), str(row["intervention_id"]), row["first_step"]) for row in there)
    announced = Counter(
        (episode_id, span["intervention_id"], span["first_step"])
        for episode_id, a in newest.items()
        for span in a.datum["interventions"]
    )
    for episode_id, intervention_id, _ in (rows - announced) + (announced - rows):
        verdict.add("wrong row", f"rows of intervention {intervention_id} of {episode_id} differ from the stream")
