"""`make bench-learner`: the learner's loader beside the same batches from arrays in memory; what its index costs.

With a camera (`seen`) it stands beside bare decoding.

Rounds are interleaved, each with all of its kinds in turn; the verdict is a ratio within the run. That both give
the same batches, bit for bit, is looked at first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from benchmarks.learner.in_memory import InMemory
from benchmarks.learner.intervals import interval
from benchmarks.learner.made_up import FEWEST, TASKS, episodes, record, spec
from benchmarks.learner.seen import seeing
from benchmarks.materializer.report import Report
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.settings import load_settings
from learner.algorithms.hg_dagger import HgDagger
from learner.cache import PayloadCache
from learner.episodes import Episode, EpisodeRecord, read_payload
from learner.frames import Room
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.policies.base import PolicySpec
from learner.policies.chunked_network import ChunkedNetwork
from learner.replay import Batch, ReplayBuffer
from learner.revisions import RevisionTable
from learner.selection import Selection
from learner.set_aside import LeftOut, SetAside
from schemas.events import EpisodeSource

TARGET = 0.8
_FRAMES_OF_AN_EPISODE = 300
_SHARES = np.full(len(TASKS), 0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; exit code 1 if a ratio misses its target."""
    options = _options(arguments)
    report, ratio = Report(), float("inf")
    with tempfile.TemporaryDirectory(prefix="bench-learner-", dir=options.data) as folder:
        if options.index:
            _index(options, report, Path(folder))  # first, in memory that nobody used before
        if options.episodes:
            made = list(episodes(options.episodes, options.steps, options.state, options.action))
            policy = spec(options.state, options.action, options.chunk)
            ratio = _drawing(options, report, policy, made, Path(folder))
            report.say(f"loader / memory: {ratio:.2f}, target {TARGET}")
            _reading(options, report, made, Path(folder))
        if options.videos:
            seen = seeing(options, report, Path(folder))
            report.say(f"loader with a camera / PyAV: {seen:.2f}, target {TARGET}")
            ratio = min(ratio, seen)
    if options.report:
        report.write(options.report, "make bench-learner", append=True)
    return 0 if ratio >= TARGET else 1


def _drawing(
    options: argparse.Namespace,
    report: Report,
    policy: PolicySpec,
    made: list[tuple[EpisodeRecord, bytes]],
    folder: Path,
) -> float:
    """Samples a second, from disk through the loader and from memory; the median ratio."""
    algorithm = HgDagger(ChunkedNetwork(policy, 0), seed=0, ema_half_life=0.0)
    chosen = [(episode, algorithm.select(episode)) for episode in _decoded(made)]
    memory = InMemory(policy, options.batch, chosen)
    buffer = ReplayBuffer(policy, options.batch, room=Room(folder / "frames"))
    for episode, selection in chosen:
        buffer.add(episode, selection)
    del chosen

    def loaded(random: np.random.Generator) -> Batch:
        return buffer.sample(random, _SHARES)

    def remembered(random: np.random.Generator) -> Batch:
        return memory.sample(random, _SHARES)

    _require_equal(loaded, remembered)
    rates: dict[str, list[float]] = {name: [] for name in ("loader", "memory", "loader, wall", "memory, wall")}
    for number in range(options.rounds):
        kinds = [("loader", loaded), ("memory", remembered)]
        for kind, draw in kinds[:: 1 if number % 2 else -1]:
            mine, wall = _rates(draw, options.draws, options.batch, seed=number)
            rates[kind].append(mine)
            rates[f"{kind}, wall"].append(wall)
    median, low, high = interval([a / b for a, b in zip(rates["loader"], rates["memory"], strict=True)])
    on_the_wall = interval([a / b for a, b in zip(rates["loader, wall"], rates["memory, wall"], strict=True)])
    rows = [[kind, *(f"{value / 1e6:.2f}" for value in interval(found))] for kind, found in rates.items()]
    rows.append(["ratio, wall", *(f"{value:.2f}" for value in on_the_wall)])
    report.section(
        "The learner's loader: `make bench-learner`",
        ["batches from", "million samples a second, median", "least", "most"],
        [*rows, ["ratio", f"**{median:.2f}**", f"{low:.2f}", f"{high:.2f}"]],
        f"{options.episodes} episodes of {options.steps} steps, {options.state} + {options.action} floats, "
        f"batches of {options.batch}, chunks of {options.chunk}; {options.rounds} interleaved rounds of "
        f"{options.draws} batches. Time is the thread's own; on the wall, others' work counts. Least and most "
        "bound the true median at 95 %. Batches are equal bit for bit.",
    )
    return median


def _reading(
    options: argparse.Namespace, report: Report, made: list[tuple[EpisodeRecord, bytes]], folder: Path
) -> None:
    """Episodes a second until their frames are decoded: from the object store, from the cache, from memory."""
    made = made[: options.read]
    rates: dict[str, list[float]] = {
        "memory, decoded one after the other": [],
        "object store": [],
        "disk cache": [],
    }
    with Stack.start(folder / "stack", only=("object_store",)) as stack:
        environment = folder / "stack.env"
        environment.write_text("".join(f"{name}={value}\n" for name, value in stack.environment().items()))
        store = ObjectStore(load_settings(environment).s3)
        store.ensure_bucket()
        for one, payload in made:
            store.put(store.key(one.payload_uri.replace("s3://sop/", f"s3://{store.bucket}/")), payload)
        records = [
            one.model_copy(update={"payload_uri": one.payload_uri.replace("s3://sop/", f"s3://{store.bucket}/")})
            for one, _ in made
        ]
        for number in range(options.rounds // 3 + 1):
            began = time.perf_counter()
            for _ in _decoded(made):
                pass
            rates["memory, decoded one after the other"].append(len(made) / (time.perf_counter() - began))
            cache = PayloadCache(folder / f"cache-{number}", 2**40)
            for kind in ("object store", "disk cache"):
                fetcher = PayloadFetcher(store, Patience(threading.Event()), cache=cache)
                began = time.perf_counter()
                for _, found in fetcher.take_all(records):
                    if not isinstance(found, Episode):
                        raise found
                rates[kind].append(len(made) / (time.perf_counter() - began))
                fetcher.close()
    report.section(
        "Payloads read ahead",
        ["payloads from", "episodes a second, median", "least", "most"],
        [[kind, *(f"{value:.0f}" for value in interval(found))] for kind, found in rates.items()],
        f"{len(made)} episodes of {options.steps} steps; fetched, verified and decoded by four threads.",
    )


def _index(options: argparse.Namespace, report: Report, folder: Path) -> None:
    """Memory of a million episodes in a learner, and what a draw among them costs."""
    policy = spec(1, 1, 1)
    buffer = ReplayBuffer(policy, options.batch, room=Room(folder / "many"))
    one, payload = next(episodes(1, 1, 1, 1))
    frames = read_payload(payload, one)
    everything = Selection.of(np.ones(1, np.bool_))
    before = _anonymous()
    for number in range(options.index):
        source = EpisodeSource.ONLINE if number % 5 else EpisodeSource.DEMONSTRATION
        buffer.add(Episode(record(number, b"", 1, source), frames), everything)
    buffer.sizes()
    grown, counted = _anonymous() - before, buffer.memory()
    rate, _ = _rates(lambda random: buffer.sample(random, _SHARES), 200, options.batch, seed=0)
    draws, index = buffer.draws.counts().nbytes / options.index, grown / options.index
    known, left_out = _tables(buffer)
    each = index + known + draws
    report.section(
        "The index in memory",
        ["what", "value"],
        [
            ["episodes", f"{options.index:,}"],
            ["bytes an episode, resident", f"**{each:.0f}**"],
            ["of which index and pools", f"{index:.0f}"],
            ["their columns", f"{counted['episodes'] / options.index:.0f}"],
            ["their pools and places", f"{counted['pools'] / options.index:.0f}"],
            ["of which the table of what was announced", f"{known:.0f}"],
            ["of which the counts of draws", f"{draws:.0f}"],
            ["bytes an episode that is set aside instead", f"{known + left_out:.0f}"],
            ["of all that were admitted, MiB", f"{each * options.index / 2**20:.0f}"],
            ["MiB a million frames, at 300 an episode", f"{each / _FRAMES_OF_AN_EPISODE * 1e6 / 2**20:.2f}"],
            ["draws among them, million samples a second", f"{rate / 1e6:.2f}"],
        ],
    )


def _tables(buffer: ReplayBuffer) -> tuple[float, float]:
    """Resident bytes an episode, beside the buffer: of the table of revisions, and of what is set aside."""
    begun = _anonymous()
    announced = RevisionTable()
    for episode_id in buffer.index:
        announced.put(episode_id, 1)
    between = _anonymous()
    aside = SetAside()
    for number, episode_id in enumerate(buffer.index):
        robot, epoch = f"robot-{number % 300}", 1_700_000_000_000
        aside.put(LeftOut(episode_id, 1, robot, epoch, EpisodeSource.ONLINE))
    return (between - begun) / len(announced), (_anonymous() - between) / len(aside)


def _decoded(made: Sequence[tuple[EpisodeRecord, bytes]]) -> Iterator[Episode]:
    return (Episode(one, read_payload(payload, one)) for one, payload in made)


def _rates(
    draw: Callable[[np.random.Generator], Batch], draws: int, size: int, *, seed: int
) -> tuple[float, float]:
    """Samples for each second of the thread's time, and of the wall's."""
    random = np.random.default_rng(seed)
    draw(random)
    began, began_on_the_wall = time.thread_time(), time.perf_counter()
    for _ in range(draws):
        draw(random)
    return draws * size / (time.thread_time() - began), draws * size / (time.perf_counter() - began_on_the_wall)


def _require_equal(
    one: Callable[[np.random.Generator], Batch], other: Callable[[np.random.Generator], Batch]
) -> None:
    randoms = [np.random.default_rng(1) for _ in range(2)]
    for _ in range(50):
        found, wanted = one(randoms[0]), other(randoms[1])
        for field in fields(Batch):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name))


def _anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.learner", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--draws", type=int, default=1000, help="batches of a round")
    parser.add_argument("--episodes", type=int, default=2000, help="0: only with a camera")
    parser.add_argument("--steps", type=int, default=_FRAMES_OF_AN_EPISODE)
    parser.add_argument("--state", type=int, default=32)
    parser.add_argument("--action", type=int, default=14)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--read", type=int, default=1000, help="payloads that are read")
    parser.add_argument("--index", type=int, default=1_000_000, help="episodes of the index; 0: not measured")
    parser.add_argument("--videos", type=int, default=20, help="episodes with a camera; 0: not measured")
    parser.add_argument("--image", type=int, default=224, help="height and width of its images")
    parser.add_argument("--image-batch", type=int, default=64)
    parser.add_argument("--image-rounds", type=int, default=9)
    parser.add_argument("--data", type=Path, default=None, help="directory on a disk; by default a temporary one")
    parser.add_argument("--report", type=Path, default=None, help="append the tables to this file")
    options = parser.parse_args(arguments)
    if 0 < options.episodes < FEWEST:
        parser.error(f"--episodes {options.episodes}: a task needs demonstrations and others: {FEWEST} at least")
    return options


if __name__ == "__main__":
    sys.exit(main())
