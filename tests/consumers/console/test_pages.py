"""Every page and every part of one, from a real ClickHouse; and what is told when there is none, or nothing."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from consumers.console.app import application, build
from consumers.console.serving import NAVIGATION
from consumers.console.wilson import interval
from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.clock import ManualClock, SystemClock
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from schemas.events import PolicyVersion
from tests.consumers.console.conftest import World, environment_of, settings_of
from tests.consumers.console.fleet import EPISODES, LABELLED, LINE, NAMES, ROBOTS, TASKS, VERSIONS
from tests.infra.clickhouse import world as history
from tests.infra.clickhouse.world import insert

NOBODY = "00000000-0000-7000-8000-000000000000"
FILTERS = "window=24h&task=fold-towel&robot=arm-1&source=ONLINE&outcome=failure&helped=yes"


def addresses(world: World) -> list[str]:
    """One of each page and part."""
    shown = world.fleet.shown.episode_id
    given = {"episode_id": shown, "policy": LINE, "version": "3", "kind": "tasks"}
    given |= {"topic": "robot-steps", "partition": "0", "offset": "40"}
    app = application(build(world.settings, SystemClock()), ["*"])
    routes = [route for route in app.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    paths = [re.sub(r"{(\w+)(:\w+)?}", lambda m: given[m[1]], route.path) for route in routes]
    return [path for path in paths if path not in ("/live", "/operator")]


def fragment(pages: TestClient, address: str, status: int = 200) -> str:
    found = pages.get(address, headers={"X-Fragment": "1"})
    assert found.status_code == status, found.text
    return found.text


def paged(pages: TestClient, address: str) -> list[str]:
    """Ids of all episodes, page after page."""
    seen: list[str] = []
    for _ in range(5):
        text = fragment(pages, f"/panels/episodes?{address}")
        seen += re.findall(r'href="/episodes/([0-9a-f-]{36})"', text)
        older = re.search(r'href="/episodes\?([^"]+)" rel="next"', text)
        if older is None:
            break
        address = older[1].replace("&amp;", "&")
    return seen


def test_every_address_answers_whole_and_as_a_part(pages: TestClient, world: World) -> None:
    for address in addresses(world):
        found = pages.get(f"{address}?policy={LINE}")
        assert found.status_code == 200, (address, found.text)
        if address.endswith("/payload"):
            continue
        assert "<!doctype html>" in found.text, address
        assert "trouble" not in found.text, address
        if address.startswith("/panels/"):
            assert "<html" not in fragment(pages, f"{address}?policy={LINE}")


def test_each_page_marks_itself_and_loads_its_parts(pages: TestClient) -> None:
    for address, name in NAVIGATION:
        text = pages.get(address).text
        assert f'<a href="{address}" aria-current="page">{name}</a>' in text
        assert "data-source=" in text
        for source in re.findall(r'data-source="([^"]+)"', text):
            assert pages.get(source.replace("&amp;", "&")).status_code == 200, source


def test_answers_keep_a_page_to_itself(pages: TestClient) -> None:
    for address in ("/", "/static/console.js", "/nowhere", "/panels/robots"):
        headers = pages.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    text = pages.get("/").text
    assert "://" not in text.replace("http://www.w3.org", "")  # nothing from elsewhere
    assert not re.search(r"<script(?! type=\"module\" src=\"/static/)|\son\w+=|\sstyle=", text)
    assert pages.get("/", headers={"host": "evil.example"}).status_code == 400


def test_the_fleet_is_all_robots_and_their_state(pages: TestClient, world: World, writer: Client) -> None:
    world.beat(writer, *ROBOTS)
    world.beat(writer, "arm-3", policy_wanted=None)
    world.beat(writer, "arm-6", policy_wanted=VERSIONS, frames_dropped=12)
    text = fragment(pages, "/panels/robots")
    assert "<strong>6</strong> of 6 live" in text
    assert all(f">{robot}</a>" in text for robot in ROBOTS)
    assert f'href="/policies/{LINE}/{VERSIONS}"' in text
    assert text.count("1 behind") == 1  # a robot that does not say what it should run is measured by the newest
    assert text.count(f"waits for v{VERSIONS}") == 1
    assert "12 frames dropped" in text
    assert "1 ms" in text  # a clock that is 1.3 ms off
    totals = fragment(pages, "/panels/totals?window=24h")
    # The evaluations are not online, the last has a payload, and a label leaves one out.
    assert f">{EPISODES * 9 // 10 + 1 - 1}<" in totals


def test_episodes_are_filtered_by_what_was_chosen_and_paged(pages: TestClient, world: World) -> None:
    def ids(query: str) -> list[str]:
        return re.findall(r'href="/episodes/([0-9a-f-]{36})"', fragment(pages, f"/panels/episodes?{query}"))

    everything = sorted((*world.fleet.episodes, world.fleet.shown), key=lambda e: e.started_at, reverse=True)
    assert ids("window=24h") == [e.episode_id for e in everything[:50]]
    wanted = [e for e in everything if e.task == "fold-towel" and e.robot_id == "arm-1" and e.source == "ONLINE"]
    wanted = [e for e in wanted if e.success is False and e.human_step_count]
    assert len(wanted) > 1
    assert ids(FILTERS) == [e.episode_id for e in wanted]
    assert ids(FILTERS.replace("ONLINE", "online")) == [e.episode_id for e in wanted]
    of_version = [e.episode_id for e in wanted if e.policy_versions == wanted[0].policy_versions]
    assert ids(f"{FILTERS}&version={wanted[0].policy_versions[0]}") == of_version

    seen = paged(pages, "window=24h&task=pour-beans")
    assert seen == [e.episode_id for e in everything if e.task == "pour-beans"]

    assert "No episode is like that" in fragment(pages, "/panels/episodes?task=' OR 1 --")
    assert fragment(pages, "/panels/names/tasks").count("<option") == len(TASKS)
    form = pages.get(f"/episodes?{FILTERS}").text
    assert all(part in form for part in ('value="fold-towel"', "checked", 'selected value="ONLINE"'))


def test_the_last_hour_is_an_hour(world: World) -> None:
    """Towards the end of an hour it was nearly two; the views' hours are whole ones."""
    now = world.fleet.now.replace(minute=59, second=30) - timedelta(hours=1)
    begin = (now - timedelta(hours=1)).replace(second=0, microsecond=0)
    everything = [*world.fleet.episodes, world.fleet.shown]
    online = [e for e in everything if e.source == "ONLINE" and not e.excluded]
    with TestClient(application(build(world.settings, ManualClock(now)), ["testserver"])) as pages:
        ended = sum(e.ended_at >= begin for e in online)
        assert f"<dd>{ended}</dd>" in fragment(pages, "/panels/totals?window=1h")
        charts = fragment(pages, "/panels/success/time?window=1h&source=ONLINE")
        judged = [int(found) for found in re.findall(r'class="unit">success, (\d+) judged', charts)]
        assert sum(judged) == sum(e.ended_at >= begin for e in online if e.success is not None)
        spans = [span for e in online for span in e.interventions if span.began_at >= begin]
        reasons = fragment(pages, "/panels/interventions/reasons?window=1h")
        counted = re.findall(r'</th><td class="n">(\d+)<', reasons)
        assert sum(map(int, counted)) == len(spans) > 0
        oldest = [e for e in everything if e.started_at >= begin and e.task == "load-rack"]
        listed = fragment(pages, "/panels/episodes?window=1h&task=load-rack")
        assert len(oldest) < 50
        assert listed.count('<tr><th scope="row">') == len(oldest)


def test_an_episode_shows_its_steps_with_names_and_what_a_human_did(pages: TestClient, world: World) -> None:
    shown = world.fleet.shown
    page = pages.get(f"/episodes/{shown.episode_id}").text
    assert all(part in page for part in ("Fold the towel.", "arm-2", shown.payload_uri, shown.payload_sha256))
    steps = fragment(pages, f"/panels/episodes/{shown.episode_id}/steps")
    assert re.findall(r'chart-title">([^<]+)', steps) == ["Reward", *NAMES, *NAMES]
    assert steps.count('<rect class="human"') == 11
    assert steps.count("the policy would have done") >= 5
    assert "over step, from 0 to 179" in steps
    takeovers = fragment(pages, f"/panels/episodes/{shown.episode_id}/takeovers")
    assert ">60–99<" in takeovers
    assert "slipping" in takeovers
    lineage = fragment(pages, f"/panels/episodes/{world.fleet.episodes[0].episode_id}/lineage")
    assert "made from it" in lineage
    assert "acted in it" in lineage


def test_a_payload_that_is_lost_or_damaged_is_trouble_and_says_how_to_mend_it(
    pages: TestClient, world: World
) -> None:
    lost, cut, odd = world.fleet.episodes[:3]
    data = world.fleet.payload.data
    store = ObjectStore(world.settings.s3)
    for each, damaged in ((cut, data[:1000]), (odd, data[:4] + bytes(1000) + data[1004:])):
        store.put(f"episodes/{each.episode_id}/{each.payload_uri.rsplit('/', 1)[-1]}", damaged)
    text = fragment(pages, f"/panels/episodes/{lost.episode_id}/steps", 404)
    assert f"not in the object store ({lost.step_count} steps announced)" in text
    assert "sop reconcile --repair" in text
    for each in (cut, odd):
        text = fragment(pages, f"/panels/episodes/{each.episode_id}/steps", 500)
        assert "The payload is damaged" in text
        assert "sop reconcile --deep --repair" in text


def test_what_people_said_of_an_episode_is_shown(pages: TestClient, world: World, writer: Client) -> None:
    id_ = world.fleet.episodes[LABELLED].episode_id
    assert "left out of training" in pages.get(f"/episodes/{id_}").text
    labels = fragment(pages, f"/panels/episodes/{id_}/labels")
    assert all(part in labels for part in ("ada", "failed", "left out", "the camera was covered"))
    assert '<span class="badge">left out</span>' in fragment(pages, "/panels/episodes?window=24h")
    assert "<dt>Stored after</dt><dd>–</dd>" in pages.get(f"/episodes/{id_}").text
    recorded = world.fleet.episodes[LABELLED]
    began = {"labels": (), "revision": 1, "materialized_at": recorded.ended_at + timedelta(seconds=1.5)}
    insert(writer, [recorded.model_copy(update=began)])
    with TestClient(application(build(world.settings, SystemClock()), ["testserver"])) as anew:
        assert "<dt>Stored after</dt><dd>1.5 s</dd>" in anew.get(f"/episodes/{id_}").text
    unlabelled = fragment(pages, f"/panels/episodes/{world.fleet.shown.episode_id}/labels")
    assert f"sop episodes label {world.fleet.shown.episode_id}" in unlabelled


def test_the_payload_comes_byte_for_byte(pages: TestClient, world: World) -> None:
    found = pages.get(f"/episodes/{world.fleet.shown.episode_id}/payload")
    assert found.content == world.fleet.payload.data
    assert pq.read_table(pa.BufferReader(found.content)).num_rows == 180
    assert found.headers["content-disposition"].endswith(f'{world.fleet.shown.episode_id}.parquet"')
    gone = pages.get(f"/episodes/{world.fleet.episodes[0].episode_id}/payload")
    assert gone.status_code == 404
    assert "another bucket" in gone.text


def test_success_has_the_views_own_rates_and_intervals(pages: TestClient, writer: Client) -> None:
    rows = writer.query(
        "SELECT task, judged, successes, success_rate, success_low, success_high FROM success_by_task"
    ).result_rows
    assert len(rows) >= len(TASKS)
    for _, judged, successes, _, low, high in rows:
        assert interval(successes, judged) == pytest.approx((low, high))
    text = fragment(pages, "/panels/success/versions?source=ONLINE")
    [[judged, wins]] = writer.query(
        "SELECT judged, successes FROM success_by_policy_version "
        "WHERE task = 'load-rack' AND policy_version = 5 AND source = 'ONLINE'"
    ).result_rows
    ends = interval(wins, judged)
    assert ends is not None
    [told] = re.findall(r'aria-label="load-rack[^"]*" data-points="([^"]+)"', text)
    points = json.loads(told.replace("&#34;", '"'))
    place = points["x"].index("5")
    assert points["lines"][0]["y"][place].startswith(f"{100 * wins / judged:.0f} % (")
    assert re.findall(r'chart-title">([^<]+)', text) == sorted(TASKS)
    assert re.findall(
        r'chart-title">([^<]+)', fragment(pages, "/panels/success/time?window=24h&task=load-rack")
    ) == ["load-rack"]


def test_policies_show_the_rollout_and_where_versions_come_from(pages: TestClient) -> None:
    versions = fragment(pages, f"/panels/policies/versions?policy={LINE}")
    assert "is held" in versions
    assert "held while the gripper of arm-3 is changed" in versions
    assert re.search(rf'>v{VERSIONS - 1}</a></th><td><span class="badge accent">current', versions)
    assert re.search(rf'>v{VERSIONS}</a></th><td><span class="badge">candidate', versions)
    page = pages.get(f"/policies/{LINE}/5").text
    assert f'href="/policies/{LINE}/4"' in page
    assert f'href="/policies/{LINE}/6"' in page
    lineage = fragment(pages, f"/panels/policies/{LINE}/5/lineage")
    assert all(task in lineage for task in TASKS)
    assert f"sop policies lineage 5 --policy {LINE} --episodes" in lineage
    assert pages.get(f"/policies/{LINE}/99").status_code == 404
    assert pages.get("/policies?policy=nobody").status_code == 404


def test_a_dead_letter_is_decoded_as_far_as_it_can_be(pages: TestClient) -> None:
    listed = fragment(pages, "/panels/dead-letters/list")
    assert listed.count("/dead-letters/robot-steps/0/") == 3
    assert fragment(pages, "/panels/dead-letters/list?reason=conflict").count("/dead-letters/robot-steps/0/") == 1
    whole = pages.get("/dead-letters/robot-steps/0/40").text
    assert "step, schema id" in whole
    assert "&#34;episode_id&#34;:" in whole
    cut = pages.get("/dead-letters/robot-steps/0/41").text
    assert "It is not what its schema says" in cut
    never = pages.get("/dead-letters/robot-steps/0/42").text
    assert "no schema id" in never
    assert "6e 6f 20 66 72 61 6d 65" in never
    assert "<script>alert" not in never
    assert pages.get("/dead-letters/robot-steps/0/99").status_code == 404


def test_what_is_asked_wrongly_is_told_with_what_to_do(pages: TestClient) -> None:
    for address, status, told in (
        ("/episodes?window=3y", 400, "There is no window"),
        ("/episodes?nonsense=1", 400, "There is no filter"),
        ("/panels/episodes?tsak=fold-towel", 400, "There is no filter"),
        ("/success?windwo=1h", 400, "window, task, robot"),
        ("/panels/success/versions?task=typo", 200, "Clear the task"),
        ("/panels/success/time?task=typo", 200, "Clear the task"),
        ("/panels/success/tasks?task=typo", 200, "Clear the task"),
        ("/panels/episodes?version=x", 400, "whole number"),
        ("/panels/episodes?before=0001-01-01T00:00:00%2B14:00", 400, "before is a time"),
        ("/panels/names/colours", 404, "There is no such list"),
        (f"/policies/{LINE}/{2**63}", 404, "Nothing here has the number"),
        (f"/policies/{LINE}/{'9' * 5000}", 404, "Nothing here has the number"),
        (f"/panels/policies/{LINE}/{2**63}/did", 404, "Nothing here has the number"),
        (f"/panels/policies/{LINE}/{2**63}/lineage", 404, "Nothing here has the number"),
        (f"/dead-letters/robot-steps/{2**31}/0", 404, "Nothing here has the number"),
        (f"/dead-letters/robot-steps/0/{2**63}", 404, "Nothing here has the number"),
        (f"/episodes/{NOBODY}", 404, "There is no episode"),
        ("/episodes/nonsense", 404, "no episode&#39;s id"),
        ("/nowhere", 404, "There is no such page"),
        ("/operator", 404, "only reads"),
    ):
        found = pages.get(address)
        assert (found.status_code, told in found.text) == (status, True), found.text
    assert pages.post("/operator/order").status_code in (404, 415)


def test_without_any_data_each_part_says_what_to_do_next(stack: Stack) -> None:
    settings = settings_of(environment_of(stack, SOP_CLICKHOUSE__DATABASE="console_empty"))
    migrate(settings.clickhouse)
    with TestClient(application(build(settings, SystemClock()), ["testserver"])) as pages:
        for address, told in (
            ("/panels/robots", "No robot reported"),
            ("/panels/latest", "No episode began"),
            ("/panels/episodes", "sop demo --keep"),
            ("/panels/success/time", "Choose a longer time range"),
            ("/panels/success/versions", "versions appear here"),
            ("/panels/interventions/time", "No online episode"),
            ("/panels/interventions/return", "No online episode"),
            ("/panels/latency/stages", "sop learn"),
            ("/panels/dead-letters/reasons", "None in the last week"),
            ("/policies", "Run sop learn"),
        ):
            found = pages.get(address)
            assert (found.status_code, told in found.text) == (200, True), (address, found.text)


def test_lines_are_told_apart_and_equal_times_lose_no_episode(stack: Stack) -> None:
    """A new line's first versions are drawn beside an old line's newest; version 1 of both is two versions."""
    settings = settings_of(environment_of(stack, SOP_CLICKHOUSE__DATABASE="console_lines"))
    migrate(settings.clickhouse)
    writer = connect(settings.clickhouse)
    for line, newest in (("live", 500), ("backfill", 1)):
        changes = {"policy": line, "version": newest}
        history.insert(writer, [history.golden(PolicyVersion).model_copy(update=changes)])
    for number, (line, version) in enumerate((("live", 400), ("live", 500), ("backfill", 1))):
        history.insert(writer, [history.episode(number, policy=line, policy_versions=(version,))])
    together = {"task": "tie", "policy": "", "policy_versions": (), "started_at": history.at(0)}
    tied = [history.episode(number, **together) for number in range(100, 220)]
    history.insert(writer, [*tied, history.episode(3, task="push", policy="live", policy_versions=(1,))])
    writer.close()
    with TestClient(application(build(settings, SystemClock()), ["testserver"])) as pages:
        text = fragment(pages, "/panels/success/versions")
        of_version = [
            re.findall(r'<td>(\w+)</td><td class="n">v1<', fragment(pages, address))
            for address in (
                "/panels/episodes?window=7d&version=1",
                "/panels/episodes?window=7d&version=1&policy=backfill",
                "/panels/episodes?window=7d&version=1&policy=nobody",
            )
        ]
        assert [sorted(found) for found in of_version] == [["backfill", "live"], ["backfill"], []]
        assert 'policy=backfill&amp;version=1"' in fragment(pages, "/panels/policies/backfill/1/did")
        for address in ("/panels/interventions/versions", "/panels/interventions/return"):
            assert all(f"<td>{line}</td>" in fragment(pages, address) for line in ("live", "backfill")), address
        assert fragment(pages, "/panels/names/lines").count("<option") == 2
        assert 'name="policy" value="live"' in pages.get("/episodes?policy=live").text
        assert paged(pages, "window=7d&task=tie") == [e.episode_id for e in tied]
    assert re.findall(r'chart-title">([^<]+)', text) == ["push, backfill", "push, live"]
    points = [json.loads(found.replace("&#34;", '"')) for found in re.findall(r'data-points="([^"]+)"', text)]
    assert [found["x"] for found in points] == [["1"], ["500"]], "version 400 is none of the newest 60"


@pytest.fixture
def lost(stack: Stack) -> Iterator[TestClient]:
    """A console whose ClickHouse is not there."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = str(reserved.getsockname()[1])
    settings = settings_of(environment_of(stack, SOP_CLICKHOUSE__PORT=port))
    with TestClient(application(build(settings, SystemClock()), ["testserver"])) as pages:
        yield pages


def test_without_clickhouse_pages_come_and_their_parts_say_so(lost: TestClient) -> None:
    assert lost.get("/").status_code == 200
    found = lost.get("/panels/robots")
    assert found.status_code == 503
    assert "ClickHouse does not answer at" in found.text
    assert "sop stack up" in found.text
    assert "by itself" not in found.text


def test_without_tables_sop_deploy_is_advised(stack: Stack) -> None:
    settings = settings_of(environment_of(stack, SOP_CLICKHOUSE__DATABASE="default"))
    with TestClient(application(build(settings, SystemClock()), ["testserver"])) as pages:
        found = pages.get("/panels/robots")
    assert (found.status_code, "sop deploy" in found.text) == (503, True)


def test_a_newer_heartbeat_is_seen_at_the_next_look(pages: TestClient, world: World, writer: Client) -> None:
    world.beat(writer, "arm-5", spool_depth=4321, errors=("the gripper is stuck",))
    time.sleep(0.6)  # a look within half a second of another is that one
    text = fragment(pages, "/panels/robots")
    assert "4,321" in text
    assert "the gripper is stuck" in text
    world.beat(writer, "arm-5")  # other tests look for trouble of their own
