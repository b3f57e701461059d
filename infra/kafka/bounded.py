"""A bound on calls of a client library that does not always keep its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from infra.errors import KafkaUnavailable

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """The outcome of `call`, whatever it is, if it comes within `seconds`.

    librdkafka's rd_kafka_send_offsets_to_transaction never looks at its timeout once the group's coordinator is
    gone (its issues 5456 and 5511): it returns when that very broker comes back, or never. A call that is given up
    stays behind in a daemon thread; whoever made it must let go of the client, too.

    Raises:
        KafkaUnavailable: it did not come.
        BaseException: what `call` raised.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failure.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise KafkaUnavailable(f"{what} did not return within {seconds:.0f} s, against its own bound")
    return outcome[0]
