"""What a robot of this version writes: topics, each with the schema of its bodies."""

from __future__ import annotations

from producers.outbox import PRODUCED_TOPICS
from producers.spool.segment import Kind
from schemas.codec import latest
from schemas.topics import TOPICS

NEWEST_KINDS = {
    topic: Kind(topic, schema.record, schema.version, schema.text)
    for topic in PRODUCED_TOPICS
    for schema in [latest(str(TOPICS[topic].event))]
}
"""By topic, in the order in which files number them."""
