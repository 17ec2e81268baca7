"""A trained drafter on disk: ``config.json`` says what it is and where it comes from, beside its weights."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from flashsd_ray.errors import CheckpointError, ConfigError
from flashsd_ray.models import compressors
from flashsd_ray.models.compressors import CompressorConfig
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.drafters.target_view import TargetView

FORMAT = 1  # raised when older readers would misread a newer file
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
COMPRESSOR_PREFIX = "compressor."

logger = logging.getLogger(__name__)


def save(
    path: Path,
    network: DrafterNetwork,
    provenance: dict[str, Any],  # command, seed, versions, steps, metrics: whatever explains the weights
) -> None:
    """The directory holds the network in bfloat16 and everything needed to load it beside the same target."""
    path.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in network.state_dict().items()
    }
    save_file(weights, path / WEIGHTS_FILE)
    (path / WEIGHTS_FILE).chmod(0o644)  # safetensors lets nobody else read its files
    view = network.view
    described = {
        "format": FORMAT,
        "config": asdict(network.config),
        "target": {
            "fingerprint": view.fingerprint,
            "hidden_size": view.hidden_size,
            "num_layers": view.num_layers,
            "vocab_size": view.vocab_size,
        },
        "provenance": provenance,
    }
    (path / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def describe(path: Path) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises:
        CheckpointError: the file is missing, is not JSON, or has another format.
    """
    try:
        described = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} holds no drafter: {error.strerror} ({CONFIG_FILE})") from error
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG_FILE} is not valid JSON: {error}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise CheckpointError(f"{path / CONFIG_FILE} is not a drafter of format {FORMAT}")
    return described


def is_for(path: Path, view: TargetView) -> bool:
    """Whether a drafter for this target is there."""
    try:
        return bool(describe(path)["target"]["fingerprint"] == view.fingerprint)
    except (CheckpointError, KeyError, TypeError):
        return False


def load(
    path: Path,
    view: TargetView,
    compressor: str | None = None,  # None: the one it was trained with
) -> DrafterNetwork:
    """The trained network in float32 on the target's device.

    Another compressor than the trained one may take its place; if it has parameters they are new and a warning is
    logged, because only acceptance suffers, never output.

    Raises:
        CheckpointError: the checkpoint is damaged or made for another target.
        ConfigError: the compressor is unknown.
    """
    described = describe(path)
    config = _read_config(described, path)
    target = described.get("target") or {}
    if target.get("fingerprint") != view.fingerprint:
        raise CheckpointError(
            f"drafter {path} was trained for target {target.get('fingerprint')} "
            f"({target.get('num_layers')} layers, width {target.get('hidden_size')}), "
            f"this target is {view.fingerprint} ({view.num_layers} layers, width {view.hidden_size})"
        )
    try:
        weights = load_file(path / WEIGHTS_FILE, device=str(view.device))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path / WEIGHTS_FILE}: {error}") from error
    is_swapped = compressor is not None and compressor != config.compressor.name
    if compressor is not None and is_swapped:
        config = replace(config, compressor=replace(config.compressor, name=compressor))
        weights = {name: value for name, value in weights.items() if not name.startswith(COMPRESSOR_PREFIX)}
    network = NETWORKS[config.kind](config, view).to(view.device)
    expected = network.state_dict()
    fresh = {name: value for name, value in expected.items() if is_swapped and name.startswith(COMPRESSOR_PREFIX)}
    if fresh:
        logger.warning("compressor %s is untrained for %s: expect fewer accepted drafts", compressor, path)
    try:
        network.load_state_dict({**fresh, **{name: value.float() for name, value in weights.items()}})
    except RuntimeError as error:
        raise CheckpointError(f"{path / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {error}") from error
    return network


def _read_config(described: dict[str, Any], path: Path) -> DrafterConfig:
    try:
        values = dict(described["config"])
        values["compressor"] = CompressorConfig(**values["compressor"])
        values["tap_layers"] = tuple(values["tap_layers"])
        config = DrafterConfig(**values)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path / CONFIG_FILE} does not describe a drafter: {error}") from error
    if config.kind not in NETWORKS or config.compressor.name not in compressors.names():
        raise CheckpointError(f"{path}: unknown drafter {config.kind!r} or compressor {config.compressor.name!r}")
    return config
