"""What the views say of a demo whose servers were kept, against its report and its robots' ledgers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.metaworld.demo.report import Report
from examples.metaworld.ledger import Ended, LedgerReader
from infra.clickhouse.client import Client
from infra.clickhouse.dictionary import ask, load_examples, results_in
from schemas.events import EpisodeSource

DOCUMENT = Path(__file__).parents[3] / "docs" / "analytics.md"
# The document's rows came of labels that were given to a kept demo; in a demo itself nobody gives any.
_OF_LABELS = {"episode_labels"}


def examples_without_their_rows(client: Client) -> Iterator[str]:
    """Views whose example in the document fails to give its columns, or any rows where the document has some."""
    written = results_in(DOCUMENT.read_text())
    for view, sql in load_examples().items():
        found = ask(client, sql)
        expected = written[view].rows and view not in _OF_LABELS
        if found.header != written[view].header or (expected and not found.rows):
            yield view


def disagreements(client: Client, report: Report, data_dir: Path) -> Iterator[str]:
    """Views that count other episodes, successes or help than the robots did."""
    ended = [
        entry
        for path in data_dir.glob("robots/*/ledger.jsonl")
        for entry in LedgerReader(path).refresh()
        if isinstance(entry, Ended)
    ]
    expected = _counted(ended)
    sql = "SELECT policy_version, task, toString(source), episodes, successes FROM success_by_policy_version"
    if _rows(client, sql) != sorted((*key, *counts) for key, counts in expected.items()):
        yield "success_by_policy_version"
    online = [one for one in ended if one.source is EpisodeSource.ONLINE]
    sql = "SELECT sum(episodes), sum(interventions), sum(steps), sum(human_steps) FROM"
    sums = [sum(getattr(one, name) for one in online) for name in ("interventions", "steps", "human_steps")]
    helped = [(len(online), *sums)]
    for view in ("human_effort", "human_effort_by_hour"):
        if _rows(client, f"{sql} {view}") != helped:
            yield view
    if _rows(client, "SELECT count() FROM interventions") != [(report.interventions.sent,)]:
        yield "interventions"
    if _rows(client, "SELECT sum(episodes) FROM data_quality_by_hour") != [(report.episodes.sent,)]:
        yield "data_quality_by_hour"
    sql = "SELECT max(episodes) FROM latency_by_hour WHERE stage = 'captured_to_kafka' GROUP BY hour, source"
    if sum(int(count) for (count,) in client.query(sql).result_rows) != report.episodes.sent:
        yield "latency_by_hour"
    # Nobody helps in an evaluation: what succeeds there was done alone.
    sql = (
        "SELECT round(sum(successes) / sum(episodes), 6) FROM success_by_policy_version "
        "WHERE source = 'EVALUATION' GROUP BY policy_version ORDER BY policy_version"
    )
    rates = [rate for (rate,) in client.query(sql).result_rows]
    if rates != [round(report.success.base, 6), round(report.success.final, 6)]:
        yield f"evaluations: {rates}"


def _counted(ended: list[Ended]) -> dict[tuple[int, str, str], tuple[int, int]]:
    episodes: Counter[tuple[int, str, str]] = Counter()
    successes: Counter[tuple[int, str, str]] = Counter()
    for one in ended:
        key = (one.policy_version, one.task, one.source.value)
        episodes[key] += 1
        successes[key] += one.success
    return {key: (episodes[key], successes[key]) for key in episodes}


def _rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    return sorted(tuple(row) for row in client.query(sql).result_rows)
