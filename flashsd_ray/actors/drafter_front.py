"""What of a drafter stays in the lane's process when the drafter itself lives elsewhere.

Taps are fused where they are produced, so that only rows of the drafter's width travel; for that the lane keeps the
drafter's fusing weights, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.config import Config
from flashsd_ray.engine.local import drafter_of
from flashsd_ray.models.drafters import TargetView
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.kv_cache import BLOCK_ROWS
from flashsd_ray.wire.drafting import DrafterCard


@dataclass(frozen=True, slots=True, eq=False)
class DrafterFront:
    """How a drafter wants to be spoken to."""

    card: DrafterCard
    fuse: Callable[[Tensor], Tensor]  # [m, M * D] -> [m, E]
    reads_embeddings: bool  # whether it compresses the vision features of the prompt instead of the taps
    vocab_size: int

    @classmethod
    def of(cls, drafter: NeuralDrafter | FreeDrafter, view: TargetView) -> DrafterFront:
        """The front of a drafter of this process; does not keep the drafter."""
        network = drafter.network if isinstance(drafter, NeuralDrafter) else None
        return cls(
            card=card_of(drafter, view),
            fuse=_as_it_is if network is None or not network.fuses_taps else _fusion(network),
            reads_embeddings=network is not None and network.vision_in is not None,
            vocab_size=view.vocab_size,
        )

    @classmethod
    def load(cls, config: Config, view: TargetView) -> DrafterFront:
        """The front of the drafter that the config names; the rest of its weights is let go again.

        Raises:
            CheckpointError: the drafter is missing, damaged or made for another target.
            ConfigError: a name is unknown.
        """
        return cls.of(drafter_of(config, view, cache_rows=BLOCK_ROWS, max_running=1), view)


def card_of(drafter: NeuralDrafter | FreeDrafter, view: TargetView) -> DrafterCard:
    """How the drafter introduces itself."""
    config = drafter.network.config if isinstance(drafter, NeuralDrafter) else None
    return DrafterCard(
        target=view.fingerprint,
        kind=type(drafter).__name__ if config is None else config.kind,
        compressor="none" if config is None else config.compressor.name,
        tap_layers=drafter.tap_layers,
        tap_width=drafter.tap_width,
        max_draft_length=drafter.max_draft_length,
    )


def _fusion(network: DrafterNetwork) -> Callable[[Tensor], Tensor]:
    norm, project = network.tap_norm, network.tap_fuse

    @torch.inference_mode()
    def fuse(taps: Tensor) -> Tensor:
        rows: Tensor = norm(project(taps))
        return rows

    return fuse


def _as_it_is(taps: Tensor) -> Tensor:
    return taps
