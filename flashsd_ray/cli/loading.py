"""The engine for a verb, loaded without the libraries' chatter."""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flashsd_ray.config import Config
from flashsd_ray.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from flashsd_ray.cli.formats import Origin
    from flashsd_ray.engine.local import Engine

logger = logging.getLogger(__name__)

# Read by the libraries when they are imported; what a user has set stays.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def quiet_libraries() -> None:
    """The libraries that are imported later write nothing; our own warnings are one line each."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("flashsd: warning: %(message)s"))
    package = logging.getLogger("flashsd_ray")
    package.handlers = [handler]
    package.propagate = False


def load_engine(config: Config) -> Engine:
    """The engine that the configuration describes.

    Raises:
        CheckpointError: a checkpoint is missing, damaged, unsupported or made for another target.
        ConfigError: a name is unknown.
    """
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.models import compressors, drafters
    from flashsd_ray.models.pretrained import BUNDLED_TARGETS

    # All names before the first weight is read: a typing error should not cost the time that loading takes.
    check_model_name(config.model.name, list(BUNDLED_TARGETS))
    drafter, compressor = config.speculation.drafter, config.speculation.compressor
    if not Path(drafter).is_dir():
        check_name("drafter", drafter, drafters.names(), ", or the directory of a checkpoint")
    check_name("compressor", compressor, compressors.names())
    engine = Engine.local(config)
    if compressor not in ("auto", engine.compressor_name):
        logger.warning("compressor %s has no effect: drafter %s sees no visual tokens", compressor, engine.drafter_name)
    return engine


def check_name(kind: str, name: str, known: Sequence[str], otherwise: str = "") -> None:
    """Raises ConfigError for a name that nothing is registered by, and names the nearest one."""
    if name in ("auto", *known):
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"unknown {kind} {name!r}; {hint}known: auto, {', '.join(known)}{otherwise}")


def check_model_name(name: str, bundled: list[str]) -> None:
    """Raises CheckpointError for a name that no hub has, so that a typing error costs no wait for the network."""
    if name in bundled or Path(name).is_dir():
        return
    if Path(name).is_file():
        raise CheckpointError(f"model {name} is a file; name the directory that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"model directory {name} does not exist")
    if "/" not in name:
        close = difflib.get_close_matches(name, bundled, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use {', '.join(bundled)}, a directory or a hub id"
        raise CheckpointError(f"unknown model {name!r}; {hint} (hub ids look like owner/name)")


def origin_of(engine: Engine) -> Origin:
    """What the answers of this engine are made with."""
    from flashsd_ray.cli.formats import Origin

    return Origin(
        model=engine.target.name,
        drafter=engine.drafter_name,
        compressor=engine.compressor_name,
        dtype=engine.dtype,
        device=engine.device,
    )
