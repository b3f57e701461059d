"""docs/analytics.md says what ClickHouse says, and every query in it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.clickhouse.client import Client, connect
from infra.clickhouse.dictionary import ask, describe, load_examples, render, results_in
from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.object_store import ObjectStore
from infra.settings import Settings
from tests.infra.clickhouse import world

DOCUMENT = Path(__file__).parents[3] / "docs" / "analytics.md"
EXAMPLES = load_examples()


@pytest.fixture(scope="module")
def analyst(settings: Settings) -> Iterator[Client]:
    made = settings.clickhouse.model_copy(update={"database": "infra_dictionary"})
    ObjectStore(settings.s3).ensure_bucket()
    migrate(made)
    ensure_episode_steps(made, settings.s3)
    writer = connect(made)
    world.insert(writer, world.everything(), world.dead_letters())
    writer.close()
    client = connect(made, analyst=True)
    yield client
    client.close()


def test_the_dictionary_is_what_the_migrations_make_of_it(analyst: Client) -> None:
    written = DOCUMENT.read_text()
    fresh = render(describe(analyst), EXAMPLES, results_in(written))
    assert fresh == written, "run `make docs-analytics` after `sop demo --keep`"


@pytest.mark.parametrize("view", EXAMPLES)
def test_every_example_runs_and_gives_the_columns_that_are_written_down(view: str, analyst: Client) -> None:
    assert view in EXAMPLES[view]
    assert ask(analyst, EXAMPLES[view]).header == results_in(DOCUMENT.read_text())[view].header


def test_results_survive_being_written_and_read(analyst: Client) -> None:
    views = describe(analyst)
    results = {view: ask(analyst, sql) for view, sql in EXAMPLES.items() if view != "episode_steps"}
    odd = ask(analyst, "SELECT 'a|b' AS text, NULL AS nothing, '' AS empty, now64(3) AS time")
    results["episode_steps"] = odd
    assert results_in(render(views, EXAMPLES, results)) == results


def test_a_view_without_an_example_is_noticed(analyst: Client) -> None:
    fewer = {view: sql for view, sql in EXAMPLES.items() if view != "recoveries"}
    with pytest.raises(ValueError, match=r"\['recoveries'\]"):
        render(describe(analyst), fewer, {})
