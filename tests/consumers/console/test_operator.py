"""Orders from the console: written through the real log, and only for who knows the token, from its own pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from consumers.console.app import application, build
from consumers.console.operator import COOKIE, SESSION_SECONDS, Desk
from infra.clock import ManualClock, SystemClock
from infra.kafka import EventProducer, OutRecord
from infra.kafka.admin import ClusterAdmin
from infra.policies import rollout as transitions
from infra.policies.keys import SigningKey
from infra.policies.log import RolloutLog
from infra.policies.rollout import Change
from infra.registry import Registry
from infra.settings import PolicySettings, Settings
from schemas.codec import encode, frame, latest
from schemas.events import PolicyRollout, PolicyVersion
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS, TOPICS
from tests.consumers.console.conftest import World
from tests.consumers.console.fleet import LINE
from tests.producers.fakes import announcement

TOKEN = "a-token-that-nobody-guesses"
HERE = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def settings(world: World) -> Settings:
    """Versions 1 to 3 of the line on a real broker, and an operator's key."""
    policies = PolicySettings(
        signing_key_pem=SecretStr(KEY.pem().decode()), operator_keys=(KEY.public,), learner_keys=(KEY.public,)
    )
    made = world.settings.model_copy(update={"policies": policies})
    topics = [TOPICS[POLICY_ROLLOUTS], TOPICS[POLICY_VERSIONS]]
    ClusterAdmin(made.kafka).ensure_topics(topics)
    registry = Registry(made.registry)
    for topic in topics:
        registry.deploy(topic)
    schema_id = registry.id_of(POLICY_VERSIONS, latest(PolicyVersion.record))
    producer = EventProducer(made.kafka, "console-test")
    for number in (1, 2, 3):
        event = KEY.sign(announcement(number, b"weights", policy=LINE))
        producer.send(OutRecord(POLICY_VERSIONS, f"{LINE}/{number}".encode(), frame(schema_id, encode(event))))
    assert producer.flush(30.0) == 0
    return made


@pytest.fixture
def desk(settings: Settings) -> Desk:
    return Desk(settings, SecretStr(TOKEN), ManualClock())


@pytest.fixture
def pages(settings: Settings, desk: Desk) -> Iterator[TestClient]:
    app = application(build(settings, SystemClock(), desk=desk), ["testserver"])
    with TestClient(app, follow_redirects=False, headers=HERE) as client:
        yield client


def enter(pages: TestClient, token: str = TOKEN) -> int:
    return pages.post("/operator/enter", data={"token": token, "name": "ada"}).status_code


def form_secret(pages: TestClient) -> str:
    found: str
    [*_, found] = re.findall(r'name="form_secret" value="([^"]+)"', pages.get(f"/policies?policy={LINE}").text)
    return found


def rollout(settings: Settings) -> PolicyRollout | None:
    return RolloutLog(settings).newest(LINE)


def test_an_operator_enters_holds_promotes_rolls_back_and_leaves(pages: TestClient, settings: Settings) -> None:
    assert "Sign in as operator" in pages.get("/policies").text
    assert enter(pages) == 303
    cookie = pages.post("/operator/enter", data={"token": TOKEN, "name": "ada"}).headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict"))
    assert "Operator: ada" in pages.get("/policies").text
    for order, version, told in (
        ("hold", "3", "v3 is held"),
        ("promote", "2", "v2 is held"),
        ("rollback", "", "v3 is held; the learner goes on from v3"),
    ):
        form = {
            "order": order,
            "policy": LINE,
            "version": version,
            "reason": "try",
            "form_secret": form_secret(pages),
        }
        found = pages.post("/operator/order", data=form)
        assert (found.status_code, told in found.text) == (200, True), found.text
    state = rollout(settings)
    assert state is not None
    assert (state.author, state.reason, state.key_id) == ("ada", "try", KEY.key_id)
    assert pages.post("/operator/leave", data={"form_secret": form_secret(pages)}).status_code == 303
    assert "Sign in as operator" in pages.get("/policies").text


def test_behind_a_proxy_with_tls_the_browser_says_https_and_the_cookie_keeps_to_it(
    settings: Settings, pages: TestClient
) -> None:
    entered = {"token": TOKEN, "name": "ada"}
    for origin, status in (
        ("https://testserver", 303),
        ("https://testserver:443", 303),
        ("https://testserver:8443", 403),
        ("https://testserver.evil.example", 403),
        ("https://evil.example", 403),
        ("file://testserver", 403),
    ):
        found = pages.post("/operator/enter", data=entered, headers={"origin": origin})
        assert found.status_code == status, origin
    assert "Secure" not in pages.post("/operator/enter", data=entered).headers["set-cookie"]
    desk = Desk(settings, SecretStr(TOKEN), ManualClock(), behind_tls=True)
    app = application(build(settings, SystemClock(), desk=desk), ["testserver"])
    with TestClient(app, follow_redirects=False, headers={"origin": "https://testserver"}) as proxied:
        cookie = proxied.post("/operator/enter", data=entered).headers["set-cookie"]
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=strict"))


def test_nothing_is_written_without_token_form_secret_and_own_page(pages: TestClient, settings: Settings) -> None:
    before = rollout(settings)
    order = {"order": "hold", "policy": LINE, "version": "1", "reason": "x"}
    assert pages.post("/operator/order", data=order).status_code == 403
    pages.cookies.set(COOKIE, "guessed")
    assert pages.post("/operator/order", data=order).status_code == 403
    pages.cookies.clear()
    assert enter(pages) == 303
    signed = {**order, "form_secret": form_secret(pages)}
    assert pages.post("/operator/order", data=order).status_code == 403
    for elsewhere in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert pages.post("/operator/order", data=signed, headers=elsewhere).status_code == 403
    assert pages.post("/operator/order", json=signed).status_code == 415
    assert pages.post("/operator/order", data={**signed, "reason": "x" * 20_000}).status_code == 413
    assert pages.get("/operator/order", params=signed).status_code == 405
    assert pages.post("/operator/order", data={**signed, "order": "drop"}).status_code == 400
    unknown = pages.post("/operator/order", data={**signed, "version": "77"})
    assert (unknown.status_code, "no version 77" in unknown.text) == (409, True)
    assert rollout(settings) == before


def test_an_order_over_a_state_that_is_not_believed_is_refused_with_its_key_and_what_to_do(
    pages: TestClient, settings: Settings
) -> None:
    log, other = RolloutLog(settings), SigningKey.generate()
    by = Change("ada", "because", SystemClock().now())
    held = log.change(LINE, transitions.hold(LINE, 3), by)
    schema_id = Registry(settings.registry).id_of(POLICY_ROLLOUTS, latest(PolicyRollout.record))
    producer = EventProducer(settings.kafka, "console-test")
    newer = other.sign(transitions.hold(LINE, 2)(held, by))
    producer.send(OutRecord(POLICY_ROLLOUTS, LINE.encode(), frame(schema_id, encode(newer))))
    assert producer.flush(30.0) == 0
    try:
        assert enter(pages) == 303
        order = {"order": "hold", "policy": LINE, "version": "1", "form_secret": form_secret(pages)}
        found = pages.post("/operator/order", data=order)
        assert found.status_code == 409
        for said in ("nothing was written", other.key_id, "SOP_POLICIES__OPERATOR_KEYS", "--over-unbelieved"):
            assert said in found.text
        assert rollout(settings) == held
    finally:
        log.change(LINE, transitions.hold(LINE, 3), by, over_unbelieved=True)


def test_a_wrong_token_is_refused_and_the_next_try_must_wait(pages: TestClient, desk: Desk) -> None:
    clock = desk.clock
    assert isinstance(clock, ManualClock)
    assert enter(pages, "wrong") == 403
    assert enter(pages) == 429
    clock.advance(1.1)
    assert enter(pages, TOKEN + "x") == 403
    clock.advance(1.1)
    assert enter(pages) == 303
    assert pages.get("/operator", params={"token": TOKEN}).status_code == 200  # an address opens nothing


def test_a_session_ends_by_itself(pages: TestClient, desk: Desk) -> None:
    assert enter(pages) == 303
    assert "Operator: ada" in pages.get("/policies").text
    assert isinstance(desk.clock, ManualClock)
    desk.clock.advance(SESSION_SECONDS + 1)
    assert "Operator: ada" not in pages.get("/policies").text


def test_the_token_is_in_no_page_and_no_words_of_the_desk(pages: TestClient, desk: Desk) -> None:
    enter(pages)
    for address in ("/", "/operator", "/policies"):
        assert TOKEN not in pages.get(address).text
    assert TOKEN not in repr(desk)
