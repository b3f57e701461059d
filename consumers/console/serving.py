"""What all pages share: the templates, the console behind a request, and troubles told on the page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from consumers.console.asking import Trouble, Warehouse
from consumers.console.choices import WINDOWS, check_names
from consumers.console.formatting import FILTERS
from infra.clock import Clock
from infra.object_store import ObjectStore
from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.console.decoded import Reader
    from consumers.console.live import Feed
    from consumers.console.operator import Desk

NAVIGATION = (
    ("/", "Fleet"),
    ("/episodes", "Episodes"),
    ("/success", "Success"),
    ("/interventions", "Interventions"),
    ("/latency", "Latency"),
    ("/policies", "Policies"),
    ("/dead-letters", "Dead letters"),
)

_TROUBLE = "trouble.html"


@dataclass
class Console:
    """What pages work with.

    live: what the live table asks, so that no page's slow queries keep it waiting.
    desk: the operator's, or None where the console only reads.
    """

    settings: Settings
    warehouse: Warehouse
    live: Warehouse
    feed: Feed
    registry: Reader
    store: ObjectStore
    clock: Clock
    desk: Desk | None = None


def console_of(request: Request) -> Console:
    """The console that a request came to."""
    found: Console = request.app.state.console
    return found


@functools.cache
def templates() -> Environment:
    """The templates of this package; what they are given is escaped."""
    found = Environment(
        loader=PackageLoader("consumers.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(FILTERS)
    return found


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """A whole page.

    Raises:
        Trouble: its address names a filter that there is not.
    """
    if template != _TROUBLE and not _within(request.url.path, "/operator"):  # which has no filters
        check_names(request.query_params)
    console = console_of(request)
    path = request.url.path
    context = {
        "navigation": NAVIGATION,
        "here": max((link for link, _ in NAVIGATION if _within(path, link)), key=len, default=""),
        "path": path,
        "query": request.url.query,
        "given": dict(request.query_params),
        "windows": WINDOWS,
        "operator": console.desk is not None,
        "session": console.desk.session_of(request) if console.desk else None,
        "now": console.clock.now(),
        "layout": "layout.html",
        **context,
    }
    return HTMLResponse(templates().get_template(template).render(context), status)


def fragment(template: str, **context: Any) -> str:
    """A part of a page, as text."""
    return templates().get_template(template).render({"layout": "bare.html", **context})


def panel(template: str) -> Callable[[Callable[[Request], dict[str, Any]]], Callable[[Request], Response]]:
    """Make an endpoint of what asks for a part of a page.

    A page's script gets the part alone; whoever follows the link without one gets it as a page.
    """

    def wrap(ask: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Response]:
        @functools.wraps(ask)
        def endpoint(request: Request) -> Response:
            bare = "x-fragment" in request.headers
            layout = "bare.html" if bare else "layout.html"
            try:
                return page(request, template, layout=layout, title="Console", **ask(request))
            except Trouble as trouble:
                return page(
                    request, _TROUBLE, layout=layout, title="Trouble", trouble=trouble, status=trouble.status
                )

        return endpoint

    return wrap


def on_trouble(request: Request, trouble: Exception) -> Response:
    """A page that could not be made."""
    if not isinstance(trouble, Trouble):
        raise trouble
    return page(request, _TROUBLE, title="Trouble", trouble=trouble, status=trouble.status)


def _within(path: str, link: str) -> bool:
    return path == link or (link != "/" and path.startswith(f"{link}/"))
