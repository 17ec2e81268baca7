"""Compressors of visual tokens. A new one is a file here whose class is decorated with ``@register(name)``."""

from __future__ import annotations

import importlib
import pkgutil

from flashsd_ray.models.compressors.base import Compressor, CompressorConfig
from flashsd_ray.models.compressors.registry import build, names, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Compressor", "CompressorConfig", "build", "names", "register"]
