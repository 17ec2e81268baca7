"""Drafters by name: trained ones from their checkpoints, untrained ones from a seed."""

from __future__ import annotations

from pathlib import Path

import torch

from flashsd_ray.errors import CheckpointError, ConfigError
from flashsd_ray.models.drafters import checkpoint
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.drafters.registry import FREE, NETWORKS, names
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.kv_cache import BLOCK_ROWS
from flashsd_ray.speculation.acceptance import AcceptanceRule

BUNDLED = Path(__file__).parents[2] / "assets" / "demo" / "drafters"
AUTO = "auto"
DEFAULT_CACHE_ROWS = 16384
DEFAULT_RUNNING = 32


def build_network(
    kind: str,
    view: TargetView,
    *,
    compressor: str = "latent",
    seed: int = 0,
    config: DrafterConfig | None = None,  # None: the kind's own sizes for this target
) -> DrafterNetwork:
    """An untrained network in float32 on the target's device; the process-wide generator is left as it was.

    Raises:
        ConfigError: the kind is unknown or is not a trained one.
    """
    if kind not in NETWORKS:
        raise ConfigError(f"unknown trained drafter {kind!r}; known: {', '.join(sorted(NETWORKS))}")
    network = NETWORKS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(config or network.default_config(view, compressor), view).to(view.device)


def run_network(
    network: DrafterNetwork,
    *,
    rule: AcceptanceRule = "coupled",
    cache_rows: int = DEFAULT_CACHE_ROWS,  # positions that the target's cache holds
    max_running: int = DEFAULT_RUNNING,
) -> NeuralDrafter:
    """The network in the target's dtype, with a cache that is never full before the target's is."""
    network = network.to(network.view.dtype).eval().requires_grad_(False)
    network.freeze()
    slack = max_running * (BLOCK_ROWS + network.config.draft_length)
    return NeuralDrafter(network, cache_rows=cache_rows + slack, rule=rule)


def build_drafter(
    kind: str,
    view: TargetView,
    *,
    compressor: str = "latent",
    seed: int = 0,
    config: DrafterConfig | None = None,
    rule: AcceptanceRule = "coupled",
    cache_rows: int = DEFAULT_CACHE_ROWS,
    max_running: int = DEFAULT_RUNNING,
) -> NeuralDrafter | FreeDrafter:
    """An untrained drafter, or one that needs no training.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind in FREE:
        return FREE[kind]()
    if kind not in NETWORKS:
        raise ConfigError(f"unknown drafter {kind!r}; known: {', '.join(names())}")
    network = build_network(kind, view, compressor=compressor, seed=seed, config=config)
    return run_network(network, rule=rule, cache_rows=cache_rows, max_running=max_running)


def resolve(name: str, view: TargetView) -> str:
    """The name of the drafter that ``auto`` stands for beside this target; other names stand for themselves."""
    if name != AUTO:
        return name
    return "block" if checkpoint.is_for(BUNDLED / "block", view) else "lookup"


def load_drafter(
    name: str,  # a registered kind (its bundled checkpoint), a checkpoint directory, or "auto"
    view: TargetView,
    *,
    compressor: str = AUTO,
    rule: AcceptanceRule = "coupled",
    cache_rows: int = DEFAULT_CACHE_ROWS,
    max_running: int = DEFAULT_RUNNING,
) -> NeuralDrafter | FreeDrafter:
    """The named drafter, ready to draft for this target.

    ``auto`` is the bundled block drafter when it was trained for this target, else lookup.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or made for another target.
        ConfigError: the name is neither a registered drafter nor a directory, or the compressor is unknown.
    """
    name = resolve(name, view)
    if name in FREE:
        return FREE[name]()
    if name not in NETWORKS and not Path(name).is_dir():
        raise ConfigError(f"unknown drafter {name!r}; known: {', '.join(names())}, or the directory of a checkpoint")
    path = BUNDLED / name if name in NETWORKS else Path(name)
    if not path.is_dir():
        raise CheckpointError(f"no trained {name!r} drafter is bundled; train one and name its directory")
    network = checkpoint.load(path, view, None if compressor == AUTO else compressor)
    return run_network(network, rule=rule, cache_rows=cache_rows, max_running=max_running)
