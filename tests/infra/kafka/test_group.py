"""Members share partition numbers over all their topics, hand them over, and lose no record to an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack, closing
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from infra.errors import GroupRefused, KafkaUnavailable, OffsetsExpired
from infra.kafka import CommittedOffset, GroupConsumer, Message, Partition
from infra.kafka.admin import ClusterAdmin
from infra.kafka.positions import _committed, ask_committed
from infra.settings import KafkaSettings, Settings
from tests.infra.conftest import MakeTopic
from tests.infra.kafka.helpers import numbered, until, values, write

NUMBERS = range(4)


def test_two_members_share_numbers_over_three_topics_and_hand_over_on_close(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topics = [make_topic(suffix, partitions=len(NUMBERS)) for suffix in ("-a", "-b", "-c")]
    names = [topic.name for topic in topics]
    everything = {(topic, number) for topic in names for number in NUMBERS}
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, topics)

    def numbers(member: GroupConsumer) -> set[int]:
        """Those that a member owns in all topics."""
        return {number for number in NUMBERS if all((topic, number) in member.assigned for topic in names)}

    with ExitStack() as members:
        first = GroupConsumer(settings.kafka, name, names)
        members.callback(first.close)
        until(lambda: first.assigned == everything, lambda: first.consume(10, 0.1))
        before = dict(first.epochs)

        second = GroupConsumer(settings.kafka, name, names)
        with closing(second):

            def turn() -> None:
                first.consume(10, 0.05)
                second.consume(10, 0.05)
                assert not first.assigned & second.assigned, "a partition has one owner"

            until(lambda: bool(second.assigned) and first.assigned | second.assigned == everything, turn)
            assert len(numbers(first)) == len(numbers(second)) == 2
            assert {number for _, number in first.assigned} == numbers(first), "no number is split"
            assert {number for _, number in second.assigned} == numbers(second)

            write(settings.kafka, [r for topic in names for n in NUMBERS for r in numbered(topic, n, 1)])
            found: dict[GroupConsumer, list[Message]] = {first: [], second: []}

            def read() -> None:
                for member, messages in found.items():
                    messages.extend(member.consume(10, 0.05))

            until(lambda: sum(map(len, found.values())) == len(everything), read)
            for member, messages in found.items():
                assert {(m.topic(), m.partition()) for m in messages} == member.assigned
            moved = set(second.assigned)
        until(lambda: first.assigned == everything, lambda: first.consume(10, 0.1))
        assert {p: first.epochs[p] - before[p] for p in everything} == {p: int(p in moved) for p in everything}


def test_a_group_that_the_brokers_do_not_let_us_into_is_an_error_and_not_an_empty_topic(
    settings: Settings, make_topic: MakeTopic, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assignor that they do not have stands for all of it: brokers before 4.0, a group that is full."""
    topic = make_topic(partitions=1)
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, [topic])
    monkeypatch.setattr("infra.kafka.consumer.ASSIGNOR", "no-such-assignor")
    with (
        closing(GroupConsumer(settings.kafka, name, [name])) as member,
        pytest.raises(GroupRefused, match=f"group {name}: .*assignor.* It needs Kafka >= 4.0"),
    ):
        until(lambda: False, lambda: member.consume(10, 0.1))


def test_a_member_commits_seeks_pauses_and_goes_on_where_the_group_was(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(partitions=1)
    place: Partition = (name, 0)
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, [topic])
    write(settings.kafka, numbered(name, 0, 3))
    seen: list[str] = []
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:

        def read() -> None:
            seen.extend(values(member.consume(10, 0.1)))

        until(lambda: seen == ["0:0", "0:1", "0:2"], read)
        member.seek(place, 1)
        until(lambda: seen[3:] == ["0:1", "0:2"], read)
        assert member.end_offset(place) == 3

        member.pause([place])
        write(settings.kafka, numbered(name, 0, 1, start=3))
        assert member.end_offset(place) == 4
        for _ in range(3):
            read()
        assert len(seen) == 5
        member.resume([place])
        until(lambda: seen[5:] == ["0:3"], read)
        member.commit({place: CommittedOffset(2, "text")})
        member.commit({})
        assert member.committed([place]) == {place: CommittedOffset(2, "text")}
    seen.clear()
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:
        until(lambda: seen == ["0:2", "0:3"], read)


def test_a_pause_ends_with_the_assignment_that_it_was_of(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(partitions=2)
    everything: set[Partition] = {(name, 0), (name, 1)}
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, [topic])
    seen: list[str] = []
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:

        def read() -> None:
            seen.extend(values(member.consume(10, 0.1)))

        until(lambda: member.assigned == everything, read)
        member.pause(sorted(everything))
        with closing(GroupConsumer(settings.kafka, name, [name])) as other:

            def both() -> None:
                read()
                other.consume(10, 0.05)

            until(lambda: len(other.assigned) == len(member.assigned) == 1, both)
            [moved], [kept] = other.assigned, member.assigned
        until(lambda: member.assigned == everything, read)
        write(settings.kafka, [record for _, number in everything for record in numbered(name, number, 1)])
        until(lambda: seen != [], read)
        assert seen == [f"{moved[1]}:0"]
        member.resume([kept])
        until(lambda: seen[1:] == [f"{kept[1]}:0"], read)


def test_a_group_without_offsets_is_told_instead_of_starting_anywhere(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 1))
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:
        with pytest.raises(OffsetsExpired, match=rf"{name}\[0\] has no committed offset. Run `sop deploy`"):
            member.committed([(name, 0)])
        with pytest.raises(OffsetsExpired, match=r"no first offsets were committed. Run `sop deploy`"):
            until(lambda: False, lambda: member.consume(10, 0.1))


@pytest.mark.parametrize("long", [False, True])
def test_a_coordinator_that_moves_while_partitions_are_assigned_delays_and_stops_nothing(
    settings: Settings, make_topic: MakeTopic, name: str, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    topic = make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 5))
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, [topic])
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:
        until(lambda: bool(member.assigned), lambda: member.consume(1, 0.1))
        member.commit({(name, 0): CommittedOffset(3)})
    asked, back = itertools.count(1), Event()

    def refused(*args: Any) -> list[TopicPartition]:
        if next(asked) == 1 or not back.is_set():
            raise KafkaUnavailable("not the coordinator")
        return _committed(*args)

    if not long:
        back.set()
    monkeypatch.setattr("infra.kafka.positions._committed", refused)
    seen: list[str] = []
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:
        member._timeout = 2.0
        if long:
            with pytest.raises(KafkaUnavailable, match="not the coordinator"):
                until(lambda: False, lambda: seen.extend(values(member.consume(10, 0.1))))
            assert member.assigned == {(name, 0)}
            write(settings.kafka, numbered(name, 0, 1, start=5))
            back.set()
        until(lambda: len(seen) == 2 + long, lambda: seen.extend(values(member.consume(10, 0.1))))
    assert seen == ["0:3", "0:4", "0:5"][: 2 + long]
    assert next(asked) > 2


def test_a_refusal_to_tell_offsets_is_not_asked_about_again() -> None:
    asked = []

    class Forbidden:
        def committed(self, partitions: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
            asked.append(partitions)
            raise KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))

    with pytest.raises(KafkaUnavailable):
        ask_committed(cast("Consumer", Forbidden()), [("t", 0)], 60.0)
    assert len(asked) == 1


def test_a_topic_that_is_missing_is_named_with_what_to_do(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    with pytest.raises(KafkaUnavailable, match=rf"^no topic {name}-x, {name}-y. Has `sop deploy` run"):
        GroupConsumer(settings.kafka, name, [f"{name}-y", name, f"{name}-x"])


def test_a_broker_that_is_down_is_unavailable(settings: Settings) -> None:
    down = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "request_timeout": 0.3})
    with pytest.raises(KafkaUnavailable):
        GroupConsumer(down, "any", ["any"])


class FakeMessage:
    """A record, or an error in its place, as librdkafka hands it out."""

    def __init__(self, topic: str, number: int, value: str = "", error: KafkaError | None = None) -> None:
        self._place, self._value, self._error = (topic, number), value, error

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def value(self) -> bytes:
        return self._value.encode()

    def error(self) -> KafkaError | None:
        return self._error


class FakeConsumer:
    """Hands out batches that were made beforehand; a set of partitions among them is a revocation."""

    batches: list[list[FakeMessage | set[Partition]]]

    def __init__(self, _config: dict[str, Any]) -> None:
        self._left = iter(self.batches)

    def list_topics(self, **_: Any) -> Any:
        return SimpleNamespace(topics={"t": ..., "u": ...})

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, **_: Any) -> None:
        self._revoke = on_revoke
        on_assign(self, [TopicPartition(topic, number) for topic in topics for number in (0, 1)])

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Nothing is ever paused."""

    def committed(self, partitions: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition, 0) for p in partitions]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        assert all(p.offset == 0 for p in partitions)

    def consume(self, _count: int, _timeout: float) -> list[FakeMessage]:
        messages = []
        for item in next(self._left, []):
            if isinstance(item, set):
                self._revoke(self, [TopicPartition(*partition) for partition in item])
            else:
                messages.append(item)
        return messages


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., GroupConsumer]:
    """Make a member that owns two partitions of `t` and `u` each, and is handed these batches."""

    def make(*batches: list[FakeMessage | set[Partition]]) -> GroupConsumer:
        monkeypatch.setattr(FakeConsumer, "batches", list(batches), raising=False)
        monkeypatch.setattr("infra.kafka.consumer.Consumer", FakeConsumer)
        return GroupConsumer(KafkaSettings(), "g", ["t", "u"])

    return make


def missing(topic: str = "t", number: int = 0) -> FakeMessage:
    return FakeMessage(topic, number, error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "gone"))


def test_records_beside_an_error_are_handed_out_before_it(offline: Any) -> None:
    """They were taken from Kafka: dropped here, they would be missing for good."""
    member = offline(
        [FakeMessage("t", 0, "a"), missing(number=1), FakeMessage("t", 0, "b")], [FakeMessage("t", 0, "c")]
    )
    assert values(member.consume(10, 0.0)) == ["a", "b"]
    with pytest.raises(KafkaUnavailable, match=r"t\[1\].*sop deploy"):
        member.consume(10, 0.0)
    assert values(member.consume(10, 0.0)) == ["c"]


def test_an_error_alone_is_raised_at_once_and_once(offline: Any) -> None:
    expired = FakeMessage("t", 0, error=KafkaError(KafkaError._AUTO_OFFSET_RESET, "no offset"))
    member = offline([expired])
    with pytest.raises(OffsetsExpired, match=r"t\[0\]"):
        member.consume(10, 0.0)
    assert member.consume(10, 0.0) == []


def test_an_error_that_passes_by_itself_is_no_failure(offline: Any) -> None:
    passing = FakeMessage("t", 0, error=KafkaError(KafkaError._TRANSPORT, "connection lost"))
    assert values(offline([passing, FakeMessage("t", 0, "a")]).consume(10, 0.0)) == ["a"]


def test_records_of_partitions_that_were_taken_away_are_left_out(offline: Any) -> None:
    a, b, c = FakeMessage("t", 0, "mine"), FakeMessage("t", 1, "another's"), FakeMessage("u", 0, "mine too")
    member = offline([b, a], [a, b, {("t", 1), ("u", 1)}, c], [c])
    assert values(member.consume(10, 0.0)) == ["another's", "mine"]
    assert values(member.consume(10, 0.0)) == ["mine", "mine too"]
    assert member.assigned == {("t", 0), ("u", 0)}
    assert values(member.consume(10, 0.0)) == ["mine too"]


def test_a_close_that_never_returns_is_given_up(offline: Any) -> None:
    """As librdkafka's does not when an assignment arrives in that moment, which is a matter of luck."""
    member, released = offline(), Event()
    member._timeout = 0.5
    member._consumer = SimpleNamespace(close=released.wait)
    with capture_logs() as told:
        member.close()
    released.set()
    assert [entry["event"] for entry in told] == ["group_not_left"]
