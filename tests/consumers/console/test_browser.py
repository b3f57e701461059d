"""The console in a real Chromium: it loads, hears of what happens, and needs neither a mouse nor a wide screen.

Pictures are kept in artifacts/console/; docs/console.png is `readme.png` of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from infra.clickhouse.client import Client
from tests.consumers.console.conftest import World
from tests.consumers.console.fleet import LINE, ROBOTS
from tests.consumers.console.test_command import running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_CI = os.environ.get("CI") == "true"
PICTURES = Path(__file__).parents[3] / "artifacts" / "console"
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
PAGES = (
    *("/", "/episodes", "/success?source=ONLINE", "/interventions", "/latency"),
    *("/policies", f"/policies/{LINE}/5", "/dead-letters", "/dead-letters/robot-steps/0/40", "/nowhere"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not IN_CI, reason="no chromium on the path; apt-get install chromium brings it"
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, ".ci/run installs chromium, and it is not there"
    with sync_playwright() as playwright:
        # Without a user namespace of its own, as in containers, Chromium has no sandbox; it loads our pages only.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with running(world.environment) as (_, port, _lines):
        yield f"http://127.0.0.1:{port}"


class Watched:
    """A page, and everything that its browser complained of."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self._address = address
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("requestfailed", lambda request: self._failed(request.url))

    def _failed(self, url: str) -> None:
        # The stream is left when its page is; what becomes a download is no longer a request of the page.
        if not url.endswith(("/live", "/payload")):
            self.complaints.append(f"failed: {url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self._address}{path}")
        self.settled()
        return self.page

    def settled(self) -> None:
        """All parts of the page are there."""
        expect(self.page.locator('.slot[aria-busy="true"]')).to_have_count(0, timeout=PATIENCE_MS)

    def picture(self, name: str, *, whole: bool = True) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 860})
    yield made
    made.close()


@pytest.fixture
def watched(context: BrowserContext, address: str) -> Watched:
    return Watched(context, address)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_every_page_loads_without_complaints_and_nothing_is_wider_than_the_screen(
    browser: Browser, address: str, world: World, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    watched = Watched(context, address)
    for path in (*PAGES, f"/episodes/{world.fleet.shown.episode_id}"):
        page = watched.open(path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path
        expect(page.locator("h1, .trouble").first).to_be_visible()
        if path != "/nowhere":
            expect(page.locator(".trouble:not(:has-text('schema'))")).to_have_count(0)
        name = re.sub(r"\W+", "-", path.split("?")[0].replace(world.fleet.shown.episode_id, "one")).strip("-")
        watched.picture(f"{name or 'fleet'}-{scheme}-{width}")
    # The browser itself reports the page that is missing on purpose.
    assert [text for text in watched.complaints if "404" not in text] == []
    context.close()


def test_a_heartbeat_reaches_an_open_page(watched: Watched, world: World, writer: Client) -> None:
    page = watched.open("/")
    expect(page.locator("[data-live-state]")).to_have_text("live")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="arm-4", exact=True))
    expect(row).to_have_count(1)
    world.beat(
        writer, "arm-4", spool_depth=7654, errors=("Kafka refuses events, they are tried again: no such topic",)
    )
    expect(row).to_contain_text("7,654", timeout=PATIENCE_MS)
    expect(page.get_by_text("they are tried again: no such topic")).to_be_visible()
    expect(page.locator(".digest")).to_contain_text("1 report trouble")
    world.beat(writer, "arm-4")
    expect(page.get_by_text("they are tried again: no such topic")).to_have_count(0, timeout=PATIENCE_MS)
    assert watched.complaints == []


def test_the_readme_s_picture(watched: Watched, world: World, writer: Client) -> None:
    page = watched.open("/")
    live, until = page.locator(".dot-state.live"), time.monotonic() + PATIENCE_MS / 1000
    while live.count() < len(ROBOTS):  # a heartbeat counts for some seconds only
        assert time.monotonic() < until
        for number, robot in enumerate(ROBOTS):
            changes = {"spool_depth": 3 + 11 * (number % 4), "clock_offset_seconds": 0.0011 * (number - 2)}
            world.beat(writer, robot, **changes, episodes_ended=78 + number * 5 % 7)
        page.wait_for_timeout(1_000)
    watched.picture("readme", whole=False)


def test_filters_act_at_once_and_an_episode_opens(watched: Watched, world: World) -> None:
    page = watched.open("/episodes")
    page.get_by_label("Outcome").select_option("failure")
    page.wait_for_url("**outcome=failure**")
    watched.settled()
    badges = page.locator("tbody .badge:not(:text-is('left out'))")
    expect(badges.first).to_have_text("failure")
    assert set(badges.all_inner_texts()) == {"failure"}
    assert "task=" not in page.url  # what was not chosen is not in the address
    page.get_by_label("Task").fill("pour-beans")
    page.get_by_label("Task").press("Enter")
    page.wait_for_url("**task=pour-beans**")
    watched.settled()
    tasks = {row.split("\t")[2] for row in page.locator("tbody tr").all_inner_texts()}
    assert tasks == {"pour-beans"}
    page.get_by_role("link", name="Clear").click()
    page.wait_for_url("**/episodes?window=24h")
    watched.settled()
    page.locator("tbody th a").first.click()
    page.wait_for_url(f"**/episodes/{world.fleet.shown.episode_id}")
    watched.settled()
    expect(page.get_by_role("heading", level=1)).to_have_text("fold-towel")
    charts = page.locator("figure.chart")
    expect(charts).to_have_count(11)
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download Parquet")).click()
    assert download.value.path().read_bytes() == world.fleet.payload.data
    assert watched.complaints == []


def test_charts_are_read_by_pointer_and_by_keys(watched: Watched, world: World) -> None:
    page = watched.open(f"/episodes/{world.fleet.shown.episode_id}")
    charts = page.locator("figure.chart")
    assert "over step, from 0 to 179" in (charts.nth(1).get_attribute("aria-label") or "")
    box = charts.nth(1).locator(".area").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    expect(charts.nth(1).locator(".readout")).to_contain_text(
        re.compile(r"^(89|90): executed -?[\d.]+, the policy")
    )
    expect(charts.nth(3).locator(".readout")).not_to_be_empty()  # all of an episode's are read together
    page.mouse.move(1, 1)
    charts.nth(0).focus()
    page.keyboard.press("End")
    expect(charts.nth(0).locator(".readout")).to_have_text("179: 0")
    page.keyboard.press("ArrowLeft")
    expect(charts.nth(0).locator(".readout")).to_have_text("178: -1")
    assert watched.complaints == []


def test_a_keyboard_is_enough(watched: Watched) -> None:
    page = watched.open("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_url("**/episodes")
    watched.settled()
    page.keyboard.press("/")
    expect(page.get_by_label("Task")).to_be_focused()
    page.keyboard.type("fold-towel")
    page.keyboard.press("Enter")
    page.wait_for_url("**task=fold-towel**")
    watched.settled()
    page.locator("tbody th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/episodes/[0-9a-f-]{36}$"))
    assert watched.complaints == []


def test_a_console_that_went_away_is_told_and_comes_back(context: BrowserContext, world: World) -> None:
    with running(world.environment) as (process, port, _):
        watched = Watched(context, f"http://127.0.0.1:{port}")
        page = watched.open("/")
        state = page.locator("[data-live-state]")
        expect(state).to_have_text("live")
        process.terminate()
        process.wait(60)
        expect(state).to_contain_text("connecting again", timeout=PATIENCE_MS)
    with running(world.environment, "--port", str(port)):
        expect(state).to_have_text("live", timeout=PATIENCE_MS)


def test_while_clickhouse_does_not_answer_the_last_table_stays_and_is_marked(watched: Watched) -> None:
    page = watched.page
    told = json.dumps({"what": "ClickHouse is busy with earlier questions.", "advice": "Wait."})
    stream = f"retry: 200\n\nevent: trouble\ndata: {told}\n\n"
    page.route("**/live", lambda route: route.fulfill(content_type="text/event-stream", body=stream))
    watched.open("/")
    expect(page.locator("#robots .stale .trouble")).to_contain_text("busy", timeout=PATIENCE_MS)
    expect(page.locator("#robots tbody th")).to_have_count(len(ROBOTS))
    expect(page.locator("[data-live-state]")).to_contain_text("as of")
    page.unroute("**/live")
    expect(page.locator("[data-live-state]")).to_have_text("live", timeout=PATIENCE_MS)
    expect(page.locator("#robots .stale, #robots .trouble")).to_have_count(0)
