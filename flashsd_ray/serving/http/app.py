"""The HTTP application: OpenAI's interface in front of a CaptionService.

=========================  ===========================================================================
POST /v1/chat/completions  a conversation with pictures and videos; ``fields.py`` has its fields
POST /v1/completions       one or several texts, continued without the chat template
GET /v1/models[/NAME]      the model
GET /healthz               200 while this process answers
GET /readyz                200 while requests are answered, else 503; says what is missing
GET /metrics               Prometheus' text format
=========================  ===========================================================================

Headers of a request: ``Authorization: Bearer KEY`` where there are keys; ``x-request-id``, the id that the answer and
the log show; ``x-request-timeout``, seconds that the answer may take, at most ``serving.request_timeout_s``;
``traceparent``, the trace that the request belongs to (W3C). Every answer has an ``x-request-id``; 429 and 503 have a
``retry-after`` in seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError
from flashsd_ray.serving.addresses import AllowedHosts
from flashsd_ray.serving.http.connection import RequestIds
from flashsd_ray.serving.http.edge import CHAT, COMPLETION, Edge
from flashsd_ray.serving.http.errors import ErrorAnswer, answer, described, encoded, internal
from flashsd_ray.serving.http.status import Metrics, health_routes, model_routes
from flashsd_ray.serving.protection import Gatekeeper


def build_app(
    service: CaptionService,
    config: Config,
    gatekeeper: Gatekeeper,
    *,
    metrics: Metrics | None = None,  # None: /metrics is not there
    echoes_request_id: bool = True,  # False: a proxy in front does, as Ray Serve's
) -> FastAPI:
    """The application, to be run by any ASGI server; ``app.state.edge`` tells what is open.

    Raises:
        ConfigError: ``serving.allowed_hosts`` has an entry of an unknown form.
    """
    AllowedHosts.of(config.serving.allowed_hosts)
    edge = Edge(service, config, gatekeeper)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        edge.close()

    app = FastAPI(
        lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, title="flashsd_ray"
    )
    app.state.edge = edge
    app.add_middleware(RequestIds, echoes=echoes_request_id)
    app.add_exception_handler(FlashSDError, _flashsd_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await edge.answer(request, CHAT)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await edge.answer(request, COMPLETION)

    app.include_router(model_routes(edge))
    app.include_router(health_routes(edge, metrics))
    return app


async def _flashsd_error(request: Request, error: Exception) -> Response:
    problem = described(error) if isinstance(error, FlashSDError) else internal()
    if problem.status == 500:
        raise error  # a fault of this program: it belongs into the log
    return _response(problem)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    problem = answer(status, f"{request.method} {request.url.path[:200]}: {_reason(status)}")
    response = _response(problem)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _validation_error(request: Request, error: Exception) -> Response:
    return _response(answer(422, "the request has a form that is not expected here"))


def _reason(status: int) -> str:
    return {404: "there is nothing here", 405: "this method has no meaning here"}.get(status, "cannot be answered")


def _response(problem: ErrorAnswer) -> Response:
    return Response(encoded(problem.body), problem.status, headers=dict(problem.headers), media_type="application/json")
