"""What a stopped training needs to go on: written whole or not at all, and only read for the same training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from flashsd_ray.errors import CheckpointError, ConfigError
from flashsd_ray.models.drafters.checkpoint import CONFIG_FILE

STATE_FILE = "training.pt"


def is_unfinished(folder: Path) -> bool:
    """Whether a training stopped there."""
    return (folder / STATE_FILE).exists()


def is_finished(folder: Path) -> bool:
    """Whether a trained drafter is there."""
    return (folder / CONFIG_FILE).exists() and not is_unfinished(folder)


def save_state(folder: Path, state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """The state is on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{STATE_FILE}.partial"
    torch.save({**state, "identity": _plain(identity)}, partial)
    partial.replace(folder / STATE_FILE)


def load_state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state that was saved there; None when there is none.

    Raises:
        ConfigError: it belongs to another training.
        CheckpointError: it cannot be read.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    then, now = state["identity"], _plain(identity)
    for name in now:
        if then.get(name) != now[name]:
            raise ConfigError(f"{path} belongs to a training with {name} {then.get(name)}, now it is {now[name]}")
    return state


def forget_state(folder: Path) -> None:
    """The training there is finished."""
    (folder / STATE_FILE).unlink(missing_ok=True)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
