"""The operator's desk: who may act, and the three orders that the console gives to a policy line.

The token travels in the body of one form and nowhere else; after that a cookie names the session, which no script
reads and no other site sends, and each form carries a secret of the session. Sessions live in memory and end with
the console.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import structlog
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consumers.console.asking import Trouble
from consumers.console.choices import number_of, text_of
from consumers.console.serving import console_of, page
from infra.clock import Clock
from infra.errors import InfraError
from infra.policies import orders
from infra.policies.log import Control, RolloutLog
from infra.policies.present import sentence
from infra.policies.rollout import Change, Transition
from infra.settings import Settings
from schemas.errors import SchemaError

COOKIE = "sop_operator"
SESSION_SECONDS = 8 * 3600.0
_PAUSE_SECONDS = 1.0
_LONGEST_FORM = 16_384
_MOST_SESSIONS = 32

Order = Callable[[Control, str, int | None], Transition]
ORDERS: dict[str, Order] = {"hold": orders.hold, "promote": orders.promote, "rollback": orders.rollback}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who knew the token. `form_secret` is in each form; `until` is of the monotonic clock."""

    name: str
    form_secret: str
    until: float


@dataclass
class Desk:
    """Sessions, by the cookie's value, and the way to the rollout log. Threads may share it.

    behind_tls: a proxy takes TLS off before requests come here, so that their own scheme does not tell of it.
    """

    settings: Settings
    token: SecretStr
    clock: Clock
    behind_tls: bool = False
    _sessions: dict[str, Session] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _next_try: float = 0.0

    def session_of(self, request: Request) -> Session | None:
        """The session of a request, if it has one that has not ended."""
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        return session if session and session.until > self.clock.monotonic() else None

    def enter(self, token: str, name: str) -> str:
        """Begin a session; the cookie's value.

        Raises:
            Trouble: the token is wrong, or somebody tried one a moment ago.
        """
        with self._guard:
            now = self.clock.monotonic()
            if now < self._next_try:
                raise Trouble("Too many tries.", "Wait a second, then try again.", 429)
            if not hmac.compare_digest(token.encode(), self.token.get_secret_value().encode()):
                self._next_try = now + _PAUSE_SECONDS
                _log.warning("operator_token_refused")
                raise Trouble(
                    "That is not the token.", "The console printed it when it started, unless it was set.", 403
                )
            alive = {key: each for key, each in self._sessions.items() if each.until > now}
            self._sessions = dict(list(alive.items())[-_MOST_SESSIONS + 1 :])
            value = secrets.token_urlsafe(32)
            self._sessions[value] = Session(name, secrets.token_urlsafe(32), now + SESSION_SECONDS)
            _log.info("operator_entered", name=name)
            return value

    def keeps_secure(self, request: Request) -> bool:
        """Whether the browser is to send the cookie over TLS only."""
        return self.behind_tls or request.url.scheme == "https"

    def leave(self, request: Request) -> None:
        """End the session of a request."""
        with self._guard:
            self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def order(self, what: str, line: str, version: int | None, author: str, reason: str) -> str:
        """Write the rollout that follows; its sentence.

        Raises:
            Trouble: nothing was written, or it is not known; the text says which.
        """
        try:
            log = RolloutLog(self.settings, "console")
            transition = ORDERS[what](log.read(), line, version)
            state = log.change(line, transition, Change(author, reason, self.clock.now()))
        except (InfraError, SchemaError) as error:
            raise Trouble(str(error), "See the line's state below before you try again.", 409) from error
        _log.info("operator_ordered", order=what, policy=line, version=version, author=author)
        return sentence(state)


async def entrance(request: Request) -> Response:
    """The form that asks for the token."""
    _desk(request)
    return await run_in_threadpool(page, request, "enter.html", title="Operator", told=None)


async def enter(request: Request) -> Response:
    """Take the token, and begin a session."""
    desk, form = _desk(request), await form_of(request)
    require_same_origin(request)
    name = text_of(form, "name") or "console"
    try:
        value = desk.enter(form.get("token", ""), name)
    except Trouble as trouble:
        return await run_in_threadpool(
            page, request, "enter.html", title="Operator", told=trouble, status=trouble.status
        )
    answer = RedirectResponse("/policies", 303)
    answer.set_cookie(
        COOKIE,
        value,
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=desk.keeps_secure(request),
    )
    return answer


async def leave(request: Request) -> Response:
    """End the session."""
    desk, form = _desk(request), await form_of(request)
    require_session(request, desk, form)
    desk.leave(request)
    answer = RedirectResponse("/policies", 303)
    answer.delete_cookie(COOKIE, secure=desk.keeps_secure(request), httponly=True, samesite="strict")
    return answer


async def order(request: Request) -> Response:
    """Carry out one order."""
    desk, form = _desk(request), await form_of(request)
    session = require_session(request, desk, form)
    what, line = form.get("order", ""), text_of(form, "policy")
    if what not in ORDERS or not line:
        raise Trouble("There is no such order.", f"Orders are {', '.join(ORDERS)}.", 400)
    version, reason = number_of(form, "version"), text_of(form, "reason")
    told = await run_in_threadpool(desk.order, what, line, version, session.name, reason)
    return await run_in_threadpool(page, request, "ordered.html", title="Done", told=told, line=line)


def require_session(request: Request, desk: Desk, form: dict[str, str]) -> Session:
    """The session of a form that this console made.

    Raises:
        Trouble: there is none, or the form is from somewhere else.
    """
    require_same_origin(request)
    session = desk.session_of(request)
    if session is None:
        raise Trouble("You are not signed in, or no longer.", "Sign in as operator, then do it again.", 403)
    if not hmac.compare_digest(form.get("form_secret", "").encode(), session.form_secret.encode()):
        raise Trouble("This form is from another session.", "Load the page again, then do it again.", 403)
    return session


def require_same_origin(request: Request) -> None:
    """Refuse what another site sends. The scheme is left out: behind a proxy with TLS only the browser knows it.

    Raises:
        Trouble: it does not come from a page of this console.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    ours = request.headers.get("host", "")
    if site not in ("same-origin", "none") or (origin is not None and not _is_of(origin, ours)):
        raise Trouble("This was sent by another site.", "Use the console's own pages.", 403)


def _is_of(origin: str, host: str) -> bool:
    """Whether an Origin header names the host and port of a Host header; either may leave out the usual port."""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        usual = {"http": 80, "https": 443}.get(theirs.scheme)
        same_port = (theirs.port or usual) == (ours.port or usual)
    except ValueError:
        return False
    return usual is not None and bool(ours.hostname) and theirs.hostname == ours.hostname and same_port


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a small form; of a repeated one the first.

    Raises:
        Trouble: it is no form, or a large one.
    """
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Trouble("That is no form.", "Use the console's own pages.", 415)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_FORM:
            raise Trouble("The form is too large.", "Give a shorter reason.", 413)
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=20).items()}
    except ValueError:
        raise Trouble("The form cannot be read.", "Use the console's own pages.", 400) from None


def _desk(request: Request) -> Desk:
    desk = console_of(request).desk
    if desk is None:
        raise Trouble("This console only reads.", "Start it with sop console --operator.", 404)
    return desk
