"""What the materializer tells of its state every few seconds, above all while it is in trouble."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from consumers.broker_time import ClockWatch, ms_of
from consumers.partition import OwnedPartition
from consumers.spill_folder import SpillFolder
from infra import telemetry
from infra.clock import Clock
from infra.errors import KafkaUnavailable
from infra.kafka import GroupConsumer, Partition

TELL_INTERVAL = 5.0
"""Seconds between two looks."""


class Gauges:
    """Sets the materializer's gauges; `tell` may be called at any time, and does nothing when it is too early."""

    def __init__(self, clock: Clock, consumer: GroupConsumer, spill: SpillFolder) -> None:
        self._clock, self._consumer, self._spill = clock, consumer, spill
        self._watch = ClockWatch(clock)
        self._told_at = clock.monotonic() - TELL_INTERVAL

    def tell(
        self, owned: Mapping[int, OwnedPartition], held: int, paused: Collection[Partition], *, kafka_answers: bool
    ) -> None:
        """Open episodes, the age of the oldest, spilled bytes, held partition numbers, and lag.

        Args:
            owned: by number.
            held: how many of them cannot go on.
            paused: nothing is fetched of these, so the broker is asked where they end.
            kafka_answers: whether there is a point in that.
        """
        if self._clock.monotonic() - self._told_at < TELL_INTERVAL:
            return
        self._watch.look(one.time for one in owned.values())
        ages = [age for one in owned.values() if (age := one.oldest_age_ms(ms_of(self._clock))) is not None]
        telemetry.OLDEST_EPISODE_SECONDS.set(max(ages, default=0) / 1000)
        telemetry.EPISODES_OPEN.set(sum(len(one.assembly.open) for one in owned.values()))
        telemetry.PARTITIONS_HELD.set(held)
        telemetry.SPILL_BYTES.set(self._spill.nbytes())
        try:
            lags = self._consumer.lags()
            telemetry.set_lags(lags)
            if kafka_answers:
                for topic, number in paused:
                    if number in owned:
                        end = self._consumer.end_offset((topic, number))
                        lags[topic, number] = max(0, end - owned[number].positions[topic])
                telemetry.set_lags(lags)
        except KafkaUnavailable:
            pass  # what was told last stands; whoever needs Kafka says what is wrong with it
        self._told_at = self._clock.monotonic()
