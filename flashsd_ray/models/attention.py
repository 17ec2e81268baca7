"""Attention of a few rows over many cached ones, the shape that decoding and verification have.

All query heads that share a key/value head, and all rows of a sequence, are folded into one matrix, so that every
cached key is read once. On a CPU in bfloat16 this is several times faster than scaled_dot_product_attention.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

MASKED = float("-inf")
MAX_SCORES = 2**24  # of one product: a long prompt is attended to in pieces of at most 64 MiB of scores
# Of a prompt: fewer start more products, more multiply more of what is hidden. The CPU's is measured (docs/log.md).
TILE_ROWS = {"cpu": 128, "cuda": 1024}


def grouped_attention(
    query: Tensor,  # [B, R, H, Dh]
    keys: Tensor,  # [Hkv, B, L, Dh]
    values: Tensor,  # [Hkv, B, L, Dh]
    bias: Tensor | None,  # [Hkv * B, H / Hkv * R, L], from fold_bias; None: every row sees every key
    scale: float,
    *,
    is_wide: bool = True,  # whether products on a CPU are of float32
) -> Tensor:  # [B, R, H * Dh]
    """Each row holds the softmax-weighted sum of the values it may see; the softmax is always in float32.

    Whoever verifies must not change between products of float32 and of bfloat16: eight rows shall round like one by one.
    """
    batch, rows, heads, width = query.shape
    kv_heads, _, length, _ = keys.shape
    keys = keys.reshape(kv_heads * batch, length, width)
    values = values.reshape(kv_heads * batch, length, width)
    if is_wide and query.device.type == "cpu":
        keys, values = keys.float(), values.float()
    piece = max(1, MAX_SCORES // (batch * heads * length))
    if rows <= piece:
        return _attend(query, keys, values, bias, scale)
    parts = []
    for start in range(0, rows, piece):
        some = None
        if bias is not None:
            some = bias.view(kv_heads * batch, -1, rows, length)[:, :, start : start + piece].flatten(1, 2)
        parts.append(_attend(query[:, start : start + piece], keys, values, some, scale))
    return torch.cat(parts, dim=1)


def fold_bias(
    bias: Tensor | None,  # [B, R or 1, L], 0 or -inf
    rows: int,  # R
    num_heads: int,
    num_kv_heads: int,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor | None:  # [Hkv * B, H / Hkv * R, L]
    """The bias as ``grouped_attention`` adds it: laid out once, not once for every layer."""
    if bias is None:
        return None
    batch, _, length = bias.shape
    group = num_heads // num_kv_heads
    wide = bias.to(dtype or bias.dtype)[None, :, None].expand(num_kv_heads, batch, group, rows, length)
    return wide.reshape(num_kv_heads * batch, group * rows, length)


def _attend(
    query: Tensor,  # [B, R, H, Dh]
    keys: Tensor,  # [Hkv * B, L, Dh]
    values: Tensor,  # [Hkv * B, L, Dh]
    bias: Tensor | None,  # [Hkv * B, H / Hkv * R, L]
    scale: float,
) -> Tensor:  # [B, R, H * Dh]
    batch, rows, heads, width = query.shape
    kv_heads = len(keys) // batch
    group = heads // kv_heads
    folded = query.view(batch, rows, kv_heads, group, width).permute(2, 0, 3, 1, 4)
    folded = folded.reshape(kv_heads * batch, group * rows, width).to(keys.dtype)
    if bias is None:
        scores = torch.bmm(folded * scale, keys.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias.to(keys.dtype), folded, keys.transpose(1, 2), alpha=scale)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
    mixed = torch.bmm(weights, values)
    mixed = mixed.view(kv_heads, batch, group, rows, width).permute(1, 3, 0, 2, 4)
    return mixed.reshape(batch, rows, heads * width).to(query.dtype)


def attends_wide_here() -> bool:
    """Whether a CPU like this one should attend in float32 although the weights are bfloat16.

    A small bfloat16 product costs 20 to 70 us before it starts where there are tiles (AMX), so float32 is faster for few
    requests. Without tiles it costs 10, is faster but for a single row, and rows round alike whoever is beside them, which
    float32 promises nowhere (docs/log.md). It depends on the kind of processor only, so that lanes agree.
    """
    has_tiles: bool = torch.cpu._is_amx_tile_supported()
    return has_tiles or not torch.cpu._is_avx512_bf16_supported()


def attention_shape(batch: int, rows: int) -> tuple[int, int]:
    """The batch and the rows that attention in bfloat16 on a CPU is padded to: 14 and 6 numbers for 32 requests of 9 rows.

    Its products are prepared for each shape, 1 ms and 0.65 MB each, and of these a thousand are kept: with every shape that
    a lane of 32 can have, nearly all rounds prepared two (docs/log.md).
    """
    padded_batch = batch if batch <= 8 else -(-batch // 4) * 4
    padded_rows = rows if rows <= 3 else rows + 1 - rows % 2
    return padded_batch, padded_rows


def prompt_attention(
    query: Tensor,  # [R, H, Dh], consecutive rows of one prompt
    keys: Tensor,  # [Hkv, L, Dh], L at least start + R
    values: Tensor,  # [Hkv, L, Dh]
    start: int,  # position of the first row
    scale: float,
) -> Tensor:  # [R, H * Dh]
    """Each row holds the softmax-weighted sum of the values up to its own position.

    Keys that a tile of rows does not see are left out of its products, which halves them for a prompt that begins here.
    Tiles end at fixed positions, and products are of the dtype of the cache: there are rows enough for that to be fast
    on a CPU, and in bfloat16 a row has the same bits in whatever pieces its prompt comes (docs/log.md).
    """
    rows, heads, width = query.shape
    kv_heads = len(keys)
    group = heads // kv_heads
    folded = (query * scale).view(rows, kv_heads, group, width).transpose(0, 1).reshape(kv_heads, rows * group, width)
    tile = max(1, min(TILE_ROWS.get(query.device.type, 1024), MAX_SCORES // (heads * (start + rows))))
    later = _later(tile, query.device)
    parts = []
    first = 0
    while first < rows:
        stop = min(rows, first + tile - (start + first) % tile)
        seen = start + stop
        scores = torch.bmm(folded[:, first * group : stop * group], keys[:, :seen].transpose(1, 2)).float()
        own = scores.view(kv_heads, stop - first, group, seen)[..., start + first :]
        own.add_(later[: stop - first, None, : stop - first])
        parts.append(torch.bmm(torch.softmax(scores, dim=-1).to(values.dtype), values[:, :seen]))
        first = stop
    mixed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return mixed.view(kv_heads, rows, group * width).transpose(0, 1).reshape(rows, heads * width).to(query.dtype)


@lru_cache(maxsize=8)
def _later(rows: int, device: torch.device) -> Tensor:  # [R, R] float32
    """What hides later rows of a tile from earlier ones."""
    with torch.inference_mode(False):  # it outlives the call
        return causal_bias(torch.zeros(1, dtype=torch.int64, device=device), rows, rows)[0]


def causal_bias(
    first_positions: Tensor,  # [B] int64, position of the first row of each sequence
    rows: int,
    length: int,
) -> Tensor:  # [B, R, L] float32, 0 where key <= position of the row, -inf elsewhere
    """Row r of sequence b may see keys ``0 .. first_positions[b] + r``."""
    positions = first_positions[:, None] + torch.arange(rows, device=first_positions.device)  # [B, R]
    hidden = torch.arange(length, device=first_positions.device) > positions[:, :, None]
    return torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device).masked_fill_(hidden, MASKED)


def rotate(
    heads: Tensor,  # [m, H, Dh]
    cos: Tensor,  # [m, 1, Dh]
    signed_sin: Tensor,  # [m, 1, Dh], the first half negated
) -> Tensor:  # [m, H, Dh]
    """The heads turned by their rotary angles (arXiv 2104.09864), halves paired as in Llama."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, dims=-1), signed_sin)


def signed(sin: Tensor) -> Tensor:  # [.., Dh]
    """The sine table with its first half negated, as ``rotate`` takes it."""
    half = sin.shape[-1] // 2
    return torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
