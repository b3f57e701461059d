"""An object that is gone, made again from the robot topics; it counts only if it has the announced sha256."""

from __future__ import annotations

from consumers.assembly import Assembly
from consumers.audit.claims import claims_of, offset_and_value
from consumers.audit.progress import Stages
from consumers.audit.reading import Spans, scan
from consumers.decode import decode
from consumers.emitted import EmittedLog
from consumers.episode import OpenEpisode
from consumers.intake import Intake
from consumers.payload import build_payload
from consumers.ranges import RangeSet
from consumers.revision import without_buried
from infra.kafka import LogReader, Message
from infra.registry import Registry
from schemas.events import EpisodeMaterialized
from schemas.topics import EPISODE_LABELS


class CannotRebuild(Exception):
    """The object cannot be made again; the text says why."""


def rebuild(event: EpisodeMaterialized, reader: LogReader, registry: Registry) -> bytes:
    """The bytes of an announced object, folded again from the records that its announcement names.

    Raises:
        CannotRebuild: records were deleted, or they give another file (an older revision's events are gone, or
            other software wrote it).
        KafkaUnavailable, RegistryUnavailable, OffsetsExpired: not now; try again.
    """
    spans: Spans = {}
    for part in event.source_offsets:
        if part.topic == EPISODE_LABELS:
            continue  # the announcement holds them
        partition = (part.topic, part.partition)
        first, end = reader.bounds(partition)
        if part.first < first or part.last >= end:
            raise CannotRebuild(f"{part.topic}[{part.partition}] holds {first}..{end - 1}, not {part.first}")
        spans[partition] = (part.first, part.last + 1)
    data = from_records(event, _records(event, spans, reader, registry), registry)
    if data is None:
        raise CannotRebuild("its records give another file than the one that was announced")
    return data


def from_records(event: EpisodeMaterialized, records: list[Message], registry: Registry) -> bytes | None:
    """The announced bytes, if these records of the episode give them."""
    assembly = Assembly(EmittedLog(), timeout=0.0)
    # All at once: nothing is sealed before everything is there, and then whatever is there is.
    found: list[OpenEpisode] = []
    for batch in decode(Intake.of(records), registry.schema_of).values():
        found += [sealed.episode for sealed in assembly.add(batch).sealed]
    found += assembly.open.values()
    for episode in found:
        if episode.episode_id == event.episode_id and episode.started is not None:
            # What was buried before the start came may have come again among these records.
            without_buried(episode, RangeSet.of(event.rejected).without(episode.rejected))
            _label(episode, event)
            payload = build_payload(episode, event.closed_by, event.revision)
            if payload.sha256 == event.payload_sha256:
                return payload.data
    return None


def _label(episode: OpenEpisode, event: EpisodeMaterialized) -> None:
    episode.labels = event.labels
    for part in event.source_offsets:
        if part.topic == EPISODE_LABELS:
            episode.offsets[part.topic] = (part.first, part.last)


def _records(event: EpisodeMaterialized, spans: Spans, reader: LogReader, registry: Registry) -> list[Message]:
    """Records of the episode, as far as its announcement lists them, in Kafka's order within each topic."""
    listed = RangeSet.of((*event.sequences, *event.rejected))
    key, found = event.robot_id.encode(), []
    with Stages().stage("records", None) as advance:
        for messages in scan(reader, spans, advance):
            own = [message for message in messages if message.key() == key]
            place = (str(messages[0].topic()), int(messages[0].partition() or 0))
            claims = claims_of(place, [offset_and_value(message) for message in own], registry.schema_of).claims
            wanted = {
                offset
                for claim in claims
                if claim.owner[0] == event.episode_id
                for sequence, offset in zip(claim.sequences.tolist(), claim.offsets.tolist(), strict=True)
                if sequence in listed
            }
            found += [message for message in own if message.offset() in wanted]
    return found
