"""The console as an ASGI application: addresses, and what is around all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from consumers.console import (
    dead_letters,
    episode,
    episodes,
    fleet,
    interventions,
    latency,
    operator,
    policies,
    success,
)
from consumers.console.asking import Trouble, Warehouse
from consumers.console.decoded import Reader
from consumers.console.live import Feed
from consumers.console.operator import Desk
from consumers.console.security import SafeHeaders
from consumers.console.serving import Console, fragment, on_trouble, page
from infra.clock import Clock
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings

STATIC = Path(__file__).parent / "static"


def build(settings: Settings, clock: Clock, *, desk: Desk | None = None) -> Console:
    """What the pages work with."""
    section = settings.console
    warehouse = Warehouse(settings.clickhouse, clock, seconds=section.query_seconds)
    live = Warehouse(settings.clickhouse, clock, seconds=section.query_seconds, at_once=1)
    return Console(
        settings=settings,
        warehouse=warehouse,
        live=live,
        feed=Feed(
            lambda: fragment("panels/fleet.html", **fleet.state_of(live, clock.now())), section.live_interval
        ),
        registry=Reader(Registry(settings.registry)),
        store=ObjectStore(settings.s3),
        clock=clock,
        desk=desk,
    )


def application(console: Console, hosts: Sequence[str]) -> Starlette:
    """The application; closing it ends the live streams and the connections."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await console.feed.stop()
        console.warehouse.close()
        console.live.close()

    app = Starlette(
        routes=[*_pages(), *_panels(), *_orders(), Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            # Live events are written as they come: their type is none that is compressed.
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5),
        ],
        exception_handlers={Trouble: on_trouble, HTTPException: _no_page},
        lifespan=lifespan,
    )
    app.state.console = console
    return app


def _pages() -> list[Route]:
    async def live(request: Request) -> Response:
        console: Console = request.app.state.console
        return await console.feed.stream(request)

    return [
        Route("/", fleet.fleet),
        Route("/live", live),
        Route("/episodes", episodes.episodes),
        Route("/episodes/{episode_id}", episode.episode),
        Route("/episodes/{episode_id}/payload", episode.payload),
        Route("/success", success.success),
        Route("/interventions", interventions.interventions),
        Route("/latency", latency.latency),
        Route("/policies", policies.policies),
        Route("/policies/{policy}/{version}", policies.policy),
        Route("/dead-letters", dead_letters.dead_letters),
        Route("/dead-letters/{topic}/{partition}/{offset}", dead_letters.dead_letter),
    ]


def _panels() -> list[Route]:
    return [
        Route("/panels/robots", fleet.robots),
        Route("/panels/totals", fleet.totals),
        Route("/panels/latest", fleet.latest),
        Route("/panels/episodes", episodes.listed),
        Route("/panels/names/{kind:str}", episodes.names),
        Route("/panels/episodes/{episode_id}/steps", episode.steps),
        Route("/panels/episodes/{episode_id}/takeovers", episode.takeovers),
        Route("/panels/episodes/{episode_id}/lineage", episode.lineage),
        Route("/panels/episodes/{episode_id}/labels", episode.labels),
        Route("/panels/success/tasks", success.by_task),
        Route("/panels/success/time", success.over_time),
        Route("/panels/success/versions", success.by_version),
        Route("/panels/interventions/time", interventions.over_time),
        Route("/panels/interventions/versions", interventions.by_version),
        Route("/panels/interventions/return", interventions.returned),
        Route("/panels/interventions/reasons", interventions.reasons),
        Route("/panels/interventions/latest", interventions.latest),
        Route("/panels/latency/stages", latency.stages),
        Route("/panels/latency/staleness", latency.staleness),
        Route("/panels/policies/versions", policies.versions),
        Route("/panels/policies/{policy}/{version}/lineage", policies.made_of),
        Route("/panels/policies/{policy}/{version}/did", policies.did),
        Route("/panels/dead-letters/reasons", dead_letters.by_reason),
        Route("/panels/dead-letters/list", dead_letters.listed),
    ]


def _orders() -> list[Route]:
    return [
        Route("/operator", operator.entrance, methods=["GET"]),
        Route("/operator/enter", operator.enter, methods=["POST"]),
        Route("/operator/leave", operator.leave, methods=["POST"]),
        Route("/operator/order", operator.order, methods=["POST"]),
    ]


def _no_page(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    told = Trouble(
        "There is no such page." if status == 404 else "This address does not take that.",
        "The links above lead to all there are.",
        status,
    )
    return page(request, "trouble.html", title="Trouble", trouble=told, status=status)
