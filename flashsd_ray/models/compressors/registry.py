"""Which compressors there are, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flashsd_ray.errors import ConfigError
from flashsd_ray.models.compressors.base import Compressor, CompressorConfig

_COMPRESSORS: dict[str, type[Compressor]] = {}


def register(name: str) -> Callable[[type[Compressor]], type[Compressor]]:
    """The decorated class can be built by this name.

    Raises:
        ConfigError: the name is taken.
    """

    def remember(compressor: type[Compressor]) -> type[Compressor]:
        if name in _COMPRESSORS:
            raise ConfigError(f"compressor {name!r} is registered twice")
        _COMPRESSORS[name] = compressor
        return compressor

    return remember


def names() -> tuple[str, ...]:
    """Every registered compressor."""
    return tuple(sorted(_COMPRESSORS))


def build(config: CompressorConfig, seed: int = 0) -> Compressor:
    """A compressor with weights drawn from the seed; the process-wide generator is left as it was.

    Raises:
        ConfigError: the name is unknown.
    """
    if config.name not in _COMPRESSORS:
        raise ConfigError(f"unknown compressor {config.name!r}; known: {', '.join(names())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _COMPRESSORS[config.name](config)
