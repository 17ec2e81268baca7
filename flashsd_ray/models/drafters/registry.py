"""Which drafters there are, by name: trained networks, and drafters that need no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flashsd_ray.errors import ConfigError
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.network import DrafterNetwork

Kind = TypeVar("Kind", type[DrafterNetwork], type[FreeDrafter])
NETWORKS: dict[str, type[DrafterNetwork]] = {}
FREE: dict[str, type[FreeDrafter]] = {}


def register(name: str) -> Callable[[Kind], Kind]:
    """The decorated network or drafter can be built by this name.

    Raises:
        ConfigError: the name is taken.
    """

    def remember(kind: Kind) -> Kind:
        if name in NETWORKS or name in FREE:
            raise ConfigError(f"drafter {name!r} is registered twice")
        if issubclass(kind, DrafterNetwork):
            NETWORKS[name] = kind
        else:
            FREE[name] = kind
        return kind

    return remember


def names() -> tuple[str, ...]:
    """Every registered drafter."""
    return tuple(sorted({*NETWORKS, *FREE}))
