"""What the edge says about itself: the model, and whether it lives, is ready and how much it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flashsd_ray.errors import FlashSDError, NotFoundError
from flashsd_ray.serving.http.edge import Edge
from flashsd_ray.serving.http.errors import encoded

Metrics = Callable[[], str | Awaitable[str]]  # in Prometheus' text format

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def model_routes(edge: Edge) -> APIRouter:
    """GET /v1/models and /v1/models/{name}, for whoever has a key; they count against no limit."""
    router = APIRouter()

    @router.get("/v1/models")
    async def models(request: Request) -> Response:
        edge.gatekeeper.identify(request.headers.get("authorization"))
        return _json({"object": "list", "data": [_model(edge)]})

    @router.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        edge.gatekeeper.identify(request.headers.get("authorization"))
        edge.require_model(name)
        return _json(_model(edge))

    return router


def health_routes(edge: Edge, metrics: Metrics | None) -> APIRouter:
    """GET /healthz, /readyz and /metrics, for everybody."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "alive"})

    @router.get("/readyz")
    async def readyz() -> Response:
        try:
            status = await edge.service.status()
        except FlashSDError as error:
            return _json({"status": "not ready", "degraded": [str(error)], "lanes": []}, 503)
        body = {
            "status": "ready" if status.is_ready else "not ready",
            "degraded": list(status.degraded),
            "lanes": [asdict(lane) for lane in status.lanes],
        }
        return _json(body, 200 if status.is_ready else 503)

    @router.get("/metrics")
    async def metrics_text() -> Response:
        if metrics is None:
            raise NotFoundError("this server keeps no metrics")
        page = metrics()
        return Response(page if isinstance(page, str) else await page, media_type=_PROMETHEUS)

    return router


def _model(edge: Edge) -> dict[str, Any]:
    card = edge.service.card
    return {
        "id": edge.model,
        "object": "model",
        "created": card.created_s,
        "owned_by": "flashsd_ray",
        "max_model_len": card.context_length,  # as in vLLM
        "flashsd": {
            "family": card.family,
            "max_new_tokens": card.max_new_tokens,
            "fingerprint": card.fingerprint,
            "drafter": card.drafter,
            "compressor": card.compressor,
            "dtype": card.dtype,
        },
    }


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(encoded(body), status, media_type="application/json")
