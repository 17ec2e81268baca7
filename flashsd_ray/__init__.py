"""Lossless speculative decoding of large multimodal models, served by distributed actors.

The names below are imported when they are first used, so that ``import flashsd_ray`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashsd_ray.client import AsyncClient, Client
    from flashsd_ray.config import Config
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.media import load_visual
    from flashsd_ray.types import CaptionRequest, SamplingParams

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "CaptionRequest",
    "Client",
    "Config",
    "Engine",
    "SamplingParams",
    "__version__",
    "load_visual",
]

_HOMES = {
    "AsyncClient": "flashsd_ray.client",
    "CaptionRequest": "flashsd_ray.types",
    "Client": "flashsd_ray.client",
    "Config": "flashsd_ray.config",
    "Engine": "flashsd_ray.engine.local",
    "SamplingParams": "flashsd_ray.types",
    "load_visual": "flashsd_ray.media",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
