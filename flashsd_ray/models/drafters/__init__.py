"""Drafters. A new one is a file here whose class is decorated with ``@register(name)``."""

from __future__ import annotations

import importlib
import pkgutil

from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.registry import names, register
from flashsd_ray.models.drafters.target_view import TargetView

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from flashsd_ray.models.drafters.build import build_drafter, load_drafter, resolve  # noqa: E402 - after every kind is known

__all__ = ["DrafterConfig", "TargetView", "build_drafter", "load_drafter", "names", "register", "resolve"]
