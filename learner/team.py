"""Ranks that train one policy together, and what they say to one another.

Each rank keeps the frames of its shard of the episodes; all draw the same batches, and each computes the gradient
of the samples that lie with it. What comes from several ranks is added in their order, on every rank: so all get
the same bits, and one process that computes the parts of all ranks, one after the other, gets them too.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from learner.errors import RankGone

# A rank that dies closes its connections, which the others notice at once. This is for a machine that is cut off;
# it is longer than any outage of the servers that the first rank waits out.
_SILENCE = dt.timedelta(hours=24)
_WORD_SECONDS = 300.0
_ALIVE_SECONDS = 10.0


class Wire(Protocol):
    """Bytes between processes. All ranks make the same calls in the same order.

    Raises (all methods):
        RankGone: one of them ended.
    """

    def gather(self, data: bytes) -> list[bytes]:
        """What each rank gave, in their order; all give equally many bytes."""
        ...

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        """What that rank gave; the others give None."""
        ...


class Team:
    """`ranks` parts of the work, of which this process does `mine`; without a wire it does them all."""

    def __init__(self, ranks: int = 1, *, rank: int = 0, wire: Wire | None = None) -> None:
        self.ranks = ranks
        self.rank = rank
        self.mine: Sequence[int] = range(ranks) if wire is None else (rank,)
        self._wire = wire
        self._silent_until = float("-inf")

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self._wire is None

    @property
    def leads(self) -> bool:
        """Whether this is the rank that reads the stream, journals, checkpoints and publishes."""
        return self.rank == 0

    def owner(self, episode_id: str) -> int:
        """The rank with which an episode lies: always the same, whatever else there is."""
        return zlib.crc32(episode_id.encode()) % self.ranks

    def has(self, episode_id: str) -> bool:
        """Whether an episode's frames lie here."""
        return self.owner(episode_id) in self.mine

    def add(self, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Sum over all ranks, in their order; `parts` are those of `mine`, of one shape and dtype."""
        if self._wire is not None:
            gathered = self._wire.gather(np.ascontiguousarray(parts[0]).tobytes())
            parts = [np.frombuffer(data, parts[0].dtype).reshape(parts[0].shape) for data in gathered]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total

    def all(self, data: bytes) -> list[bytes]:
        """What each rank gave, in their order; all give equally many bytes."""
        return [data] if self._wire is None else self._wire.gather(data)

    def tell(self, message: bytes) -> None:
        """The first rank says what all do next."""
        if self._wire is not None:
            self._wire.broadcast(message, 0)

    def say_alive(self, now: float) -> None:
        """Now and then the first rank says nothing, so that those who wait for its word do not give it up.

        Only where they do wait for its word. `now` in monotonic seconds.
        """
        if now >= self._silent_until:
            self._silent_until = now + _WORD_SECONDS
            self.tell(b'{"do": "nothing"}')

    def hear(self) -> bytes:
        """What the first rank says."""
        if self._wire is None:
            raise RuntimeError("a process alone has nobody to hear")
        return self._wire.broadcast(None, 0)

    def share(self, episode_id: str, tell: Callable[[], bytes]) -> bytes:
        """What the owner of an episode has to say about it, to all."""
        if self._wire is None:
            return tell()
        owner = self.owner(episode_id)
        return self._wire.broadcast(tell() if owner == self.rank else None, owner)


class Gloo:
    """torch.distributed on CPUs. Implements `Wire`."""

    def __init__(self) -> None:
        """Meet the others, as torchrun's environment says."""
        import torch.distributed as dist  # noqa: PLC0415 - a second that a process alone need not pay

        dist.init_process_group("gloo", timeout=_SILENCE)
        self._dist: Any = dist

    def gather(self, data: bytes) -> list[bytes]:
        """What each rank gave, in their order."""
        ours = _tensor(data)
        found = [_tensor(bytes(len(data))) for _ in range(self._dist.get_world_size())]
        self._call(self._dist.all_gather, found, ours)
        return [part.numpy().tobytes() for part in found]

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        """What that rank gave."""
        size = _tensor(len(data or b"").to_bytes(8, "little"))
        self._call(self._dist.broadcast, size, rank)
        content = _tensor(data or bytes(int.from_bytes(size.numpy().tobytes(), "little")))
        if len(content):
            self._call(self._dist.broadcast, content, rank)
        return bytes(content.numpy().tobytes())

    def _call(self, collective: Callable[..., object], *arguments: object) -> None:
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise RankGone(f"another rank is gone: {str(error).splitlines()[0]}") from error


class Watched:
    """A wire whose calls may take as long as another rank waits for its disk or its store. Implements `Wire`.

    A call is never broken off, for then the ranks would no longer make the same calls.
    """

    def __init__(self, wire: Wire, alive: Callable[[], None], every: float = _ALIVE_SECONDS) -> None:
        """`alive` is called on a thread of its own every so many seconds, while a call lasts."""
        self._wire, self._alive, self._every = wire, alive, every
        self._calling = False
        threading.Thread(target=self._watch, name="wire-watch", daemon=True).start()

    def gather(self, data: bytes) -> list[bytes]:
        """What each rank gave, in their order."""
        with self._call():
            return self._wire.gather(data)

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        """What that rank gave."""
        with self._call():
            return self._wire.broadcast(data, rank)

    @contextmanager
    def _call(self) -> Iterator[None]:
        self._calling = True
        try:
            yield
        finally:
            self._calling = False

    def _watch(self) -> None:
        never = threading.Event()
        while not never.wait(self._every):
            if self._calling:
                self._alive()


def _tensor(data: bytes) -> Any:
    import torch  # noqa: PLC0415

    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def assemble(alive: Callable[[], None]) -> Team:
    """The team that torchrun started; a process that it did not start is alone.

    `alive` is called every few seconds while another rank is waited for.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return Team(ranks, rank=int(os.environ["RANK"]), wire=Watched(Gloo(), alive)) if ranks > 1 else Team()


ALONE = Team()
