"""The sizes of a drafter: everything needed to build its modules, nothing about how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashsd_ray.errors import ConfigError
from flashsd_ray.models.compressors import CompressorConfig
from flashsd_ray.models.drafters.target_view import TargetView

WIDE = 1024  # from this width on heads are 128 wide, as in most models of that size


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterConfig:
    """Everything that fixes the shape and the inputs of a trained drafter."""

    kind: str
    tap_layers: tuple[int, ...]  # numbered as transformers' hidden_states
    compressor: CompressorConfig
    hidden_size: int  # D of the target
    width: int  # E
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    draft_length: int  # most tokens in one block
    markov_rank: int = 0  # 0: the slots of a block do not see each other's tokens
    source: Literal["taps", "vision"] = "taps"  # what the compressor reads at visual positions
    has_lead: bool = False  # whether the slots of a block begin with what the target thought last
    is_causal: bool = False  # whether a slot of a block sees those before it only, so that a short block is less work

    def __post_init__(self) -> None:
        """Raises ConfigError when sizes contradict each other."""
        if not self.tap_layers or list(self.tap_layers) != sorted(set(self.tap_layers)) or self.tap_layers[0] < 1:
            raise ConfigError(f"tap_layers must be positive and ascending, got {self.tap_layers}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"{self.num_heads} heads cannot share {self.num_kv_heads} key/value heads")
        if self.compressor.width != self.width:
            raise ConfigError(f"the compressor is {self.compressor.width} wide, the drafter {self.width}")
        if self.draft_length < 1:
            raise ConfigError(f"draft_length must be positive, got {self.draft_length}")


def spread_taps(num_layers: int, count: int) -> tuple[int, ...]:
    """``count`` taps spread evenly from a low layer to one near the end.

    Source: DFlash, arXiv 2602.06036 (layers 1 .. n - 3).
    """
    last = max(1, num_layers - 3)
    steps = max(1, count - 1)
    return tuple(sorted({min(num_layers - 1, 2 + (last - 1) * index // steps) or 1 for index in range(count)}))


def attention_shape(width: int) -> tuple[int, int, int]:
    """Heads, key/value heads and head width that suit a drafter of this width."""
    head_dim = 128 if width >= WIDE else 64 if width >= 64 else 16
    heads = max(1, width // head_dim)
    kv_heads = next(count for count in range(max(1, heads // 4), 0, -1) if heads % count == 0)
    return heads, kv_heads, head_dim


def compressor_config(
    name: str, view: TargetView, width: int, num_latents: int = 4, piece_tokens: int = 36
) -> CompressorConfig:
    """A compressor that fits a drafter of this width."""
    heads = 4 if width >= 64 else 1
    return CompressorConfig(
        name=name,
        width=width,
        num_latents=num_latents,
        piece_tokens=piece_tokens,
        num_heads=heads,
        inner_width=heads * max(8, width // 10),
        norm_eps=view.rms_norm_eps,
    )


def one_layer(
    kind: str,
    view: TargetView,
    compressor: str,
    *,
    tap_layers: tuple[int, ...],
    draft_length: int,
    markov_rank: int = 0,
) -> DrafterConfig:
    """A drafter of one layer, as wide as its target."""
    width = view.hidden_size
    heads, kv_heads, head_dim = attention_shape(width)
    return DrafterConfig(
        kind=kind,
        tap_layers=tap_layers,
        compressor=compressor_config(compressor, view, width),
        hidden_size=width,
        width=width,
        num_layers=1,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=2 * width,
        draft_length=draft_length,
        markov_rank=markov_rank,
    )
