"""The pieces that every trained drafter is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashsd_ray.models.attention import fold_bias, grouped_attention, rotate, signed
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.linear import FixedLinear

FIRST_ROTARY_ROWS = 1024  # the table doubles when a longer sequence comes


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis with a learned gain.

    Frozen, it takes four small operations instead of the ten that torch's own needs on a CPU; drafting is mostly the
    time between operations. The result differs by rounding only.
    """

    def __init__(self, eps: float, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.eps = eps
        self._scaled: Tensor | None = None  # gain times the root of the width
        self._floor = (shape[-1] * eps) ** 0.5

    def freeze(self) -> None:
        """Weights no longer change."""
        self._scaled = self.weight.detach() * self.weight.shape[-1] ** 0.5

    def forward(self, rows: Tensor) -> Tensor:  # [.., E] -> [.., E]
        """The rows at unit scale times the gain."""
        if self._scaled is None:
            return F.rms_norm(rows, rows.shape[-1:], None, self.eps) * self.weight.to(rows.dtype)
        lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min_(self._floor)
        return torch.mul(rows, self._scaled).div_(lengths)


class Projection(nn.Linear):
    """A linear layer whose weight is laid out for the processor once it no longer changes."""

    fixed: FixedLinear | None = None

    def freeze(self) -> None:
        """Weights no longer change."""
        self.fixed = FixedLinear(self.weight.detach(), None if self.bias is None else self.bias.detach())

    def forward(self, rows: Tensor) -> Tensor:  # [.., I] -> [.., O]
        """The product."""
        return F.linear(rows, self.weight, self.bias) if self.fixed is None else self.fixed(rows)

    def plus(self, residual: Tensor, rows: Tensor) -> Tensor:  # [m, O], [m, I] -> [m, O]
        """The product added to ``residual``."""
        return residual + self(rows) if self.fixed is None else self.fixed.plus(residual, rows)


class RotaryTable:
    """Cosines and signed sines of text positions, grown as longer sequences come."""

    def __init__(self, head_dim: int, theta: float) -> None:
        self._frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def rows(self, positions: Tensor, longest: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine [m, 1, Dh] of positions [m] int64, none of which exceeds ``longest``."""
        key = (positions.device, dtype)
        table = self._tables.get(key)
        if table is None or longest >= len(table[0]):
            table = self._tables[key] = self._grow(longest, *key)
        return table[0].index_select(0, positions), table[1].index_select(0, positions)

    def _grow(self, longest: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        size = max(FIRST_ROTARY_ROWS, 1 << longest.bit_length())
        with torch.inference_mode(False):  # the table outlives the call, and training may need it next
            angles = torch.arange(size, dtype=torch.float64)[:, None, None] * self._frequencies.repeat(2)
            return angles.cos().to(device, dtype), signed(angles.sin()).to(device, dtype)


class DraftAttention(nn.Module):
    """Grouped-query attention with query/key normalisation, split where the cache comes in between."""

    def __init__(self, config: DrafterConfig, eps: float) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        mixed = config.num_heads * config.head_dim
        self.scale = config.head_dim**-0.5
        self.norm = RMSNorm(eps, config.width)
        self.qkv = Projection(config.width, mixed + 2 * config.num_kv_heads * config.head_dim, bias=False)
        self.head_norm = RMSNorm(eps, config.num_heads + config.num_kv_heads, config.head_dim)
        self.output = Projection(mixed, config.width, bias=False)

    def project(
        self,
        rows: Tensor,  # [m, E]
        cos: Tensor,  # [m, 1, Dh]
        signed_sin: Tensor,  # [m, 1, Dh]
    ) -> tuple[Tensor, Tensor, Tensor]:  # [m, H, Dh], [m, Hkv, Dh], [m, Hkv, Dh]
        """Queries, keys and values of the rows, the first two turned to their positions."""
        heads = self.qkv(self.norm(rows)).view(len(rows), -1, self.head_dim)
        turned = self.num_heads + self.num_kv_heads
        turning = rotate(self.head_norm(heads[:, :turned]), cos, signed_sin)
        return turning[:, : self.num_heads], turning[:, self.num_heads :], heads[:, turned:]

    def read(
        self,
        queries: Tensor,  # [B * R, H, Dh]
        keys: Tensor,  # [Hkv, B, L, Dh]
        values: Tensor,  # [Hkv, B, L, Dh]
        bias: Tensor | None,  # [B, R or 1, L] float32
    ) -> Tensor:  # [B * R, H * Dh]
        """What the rows of each sequence found among its keys."""
        grouped = queries.reshape(keys.shape[1], -1, self.num_heads, self.head_dim)
        folded = fold_bias(bias, grouped.shape[1], self.num_heads, self.num_kv_heads)
        return grouped_attention(grouped, keys, values, folded, self.scale).flatten(0, 1)

    def add(
        self,
        hidden: Tensor,  # [m, E]
        mixed: Tensor,  # [m, H * Dh]
    ) -> Tensor:  # [m, E]
        """The residual stream with what attention found."""
        return self.output.plus(hidden, mixed)


class FeedForward(nn.Module):
    """The gated half of a layer."""

    def __init__(self, config: DrafterConfig, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(eps, config.width)
        self.gate_up = Projection(config.width, 2 * config.intermediate_size, bias=False)
        self.down = Projection(config.intermediate_size, config.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:  # [m, E] -> [m, E]
        """The residual stream with the gated features added."""
        gate, up = self.gate_up(self.norm(hidden)).chunk(2, dim=-1)
        return self.down.plus(hidden, F.silu(gate) * up)


class DraftLayer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: DrafterConfig, eps: float) -> None:
        super().__init__()
        self.attention = DraftAttention(config, eps)
        self.feed_forward = FeedForward(config, eps)

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:  # [m, E], [m, H * Dh] -> [m, E]
        """The residual stream after both halves."""
        result: Tensor = self.feed_forward(self.attention.add(hidden, mixed))
        return result
