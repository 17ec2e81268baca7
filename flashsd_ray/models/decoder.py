"""The target's language model as one loop over layers, run on rows of many sequences at once.

The weights are those of the transformers library's own module, which stays usable: query/key/value and gate/up
projections are laid side by side in memory and the library's parameters become views of them. Only the loop is ours,
because two thirds of the time of a small forward is spent around the matrix products (docs/adr/0005). It covers the
decoders that share Llama's layout: RMSNorm, grouped-query attention with rotary positions, gated SiLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashsd_ray.errors import CheckpointError
from flashsd_ray.models.attention import (
    attends_wide_here,
    attention_shape,
    causal_bias,
    fold_bias,
    grouped_attention,
    prompt_attention,
    rotate,
    signed,
)
from flashsd_ray.models.kv_cache import KVCache
from flashsd_ray.models.linear import FixedLinear, prepare, usual_rows

FIRST_ROTARY_ROWS = 1024  # the table doubles when a longer sequence comes


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The parameters of one decoder layer, as the loop reads them."""

    input_norm: Tensor  # [D]
    qkv: FixedLinear  # D -> (H + 2 Hkv) * Dh
    query_norm: Tensor | None  # [Dh]
    key_norm: Tensor | None  # [Dh]
    out: FixedLinear  # H * Dh -> D
    post_norm: Tensor  # [D]
    gate_up: FixedLinear  # D -> 2 * I
    down: FixedLinear  # I -> D


@dataclass(frozen=True, slots=True, eq=False)
class RowGroup:
    """Consecutive rows of a flat batch whose attention is computed together: ``batch`` sequences of ``rows`` each."""

    start: int
    batch: int
    rows: int
    keys: Tensor | slice  # what KVCache.read takes
    length: int  # L, keys of each sequence
    first_positions: Tensor | None  # [B] int64, of each sequence's first row; None: every row sees every key
    prompt_start: int | None = None  # position of the first row of a piece of one prompt; None: no rows of a prompt
    num_read: int | None = None  # its last rows of which anybody reads what comes out of the last layer; None: all

    @property
    def stop(self) -> int:
        """First flat row after the group."""
        return self.start + self.batch * self.rows

    def read_part(self, start: int) -> RowGroup:
        """The rows that are read, as a group that begins at the flat row ``start``."""
        if self.num_read is None:
            return replace(self, start=start)
        skipped = self.rows - self.num_read
        first = None if self.prompt_start is None else self.prompt_start + skipped
        return replace(self, start=start, rows=self.num_read, prompt_start=first)

    def read_rows(self) -> range:
        """The flat rows that are read."""
        return range(self.start if self.num_read is None else self.stop - self.num_read, self.stop)


@dataclass(frozen=True, slots=True, eq=False)
class _Padded:
    """How the attention of one group is computed: the same for every layer, in a shape that comes often."""

    batch: int
    rows: int
    keys: Tensor | slice  # what KVCache.read takes
    bias: Tensor | None  # folded


@dataclass(frozen=True, slots=True, eq=False)
class FlatBatch:
    """Rows of many sequences, one after the other, and where each belongs; those behind the last group are padding."""

    embeddings: Tensor  # [m, D]
    cos: Tensor  # [m, Dh]
    sin: Tensor  # [m, Dh]
    cache_rows: Tensor  # [m] int64, where keys and values of each row are kept
    groups: Sequence[RowGroup]
    deepstack: Sequence[tuple[Tensor, Tensor]] = ()  # per early layer: flat rows [N] int64, what to add [N, D]


@dataclass(frozen=True, slots=True, eq=False)
class DecoderOutput:
    """What one forward leaves behind."""

    hidden: Tensor  # [n, D], of the rows that are read, after the final norm: the input of the language-model head
    taps: Tensor | None  # [m, M * D]


class Decoder:
    """Runs flat batches through the layers of one text model."""

    def __init__(self, text_model: nn.Module, lm_head: Tensor, *, share_weights: bool = True) -> None:
        """Takes over the weights of ``text_model``.

        Raises:
            CheckpointError: the layers are not laid out like Llama's.
        """
        module: Any = text_model
        config = module.config
        _check_supported(config, module.layers[0])
        attention = module.layers[0].self_attn
        self.head_dim: int = attention.head_dim
        self.num_heads = attention.q_proj.weight.shape[0] // self.head_dim
        self.num_kv_heads = attention.k_proj.weight.shape[0] // self.head_dim
        self.num_layers = len(module.layers)
        self.hidden_size: int = config.hidden_size
        self.norm_eps: float = config.rms_norm_eps
        self.scale: float = attention.scaling
        self.embedding: Tensor = module.embed_tokens.weight  # [V, D]
        self.lm_head = lm_head  # [V, D]
        self._head = FixedLinear(lm_head)
        # Whether answers attend in float32 on a CPU; must not change while requests are open.
        self.attends_wide = attends_wide_here()
        self.final_norm: Tensor = module.norm.weight
        self.layers = [_take_layer(layer, share_weights) for layer in module.layers]
        self._rotary = module.rotary_emb
        self._num_axes = 3 if hasattr(self._rotary, "mrope_section") else 1
        self._rotary_table = (torch.empty(0), torch.empty(0))

    @property
    def vocab_size(self) -> int:
        """V, the width of logits."""
        return len(self.lm_head)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def attends_narrow(self) -> bool:
        """Whether answers attend in bfloat16 on a CPU."""
        return self.device.type == "cpu" and self.dtype == torch.bfloat16 and not self.attends_wide

    def usual_rows(self, num_rows: int) -> int:
        """How many rows a batch of so many should be padded to."""
        return num_rows if self._head.packed is None else usual_rows(num_rows)

    def usual_keys(self, num_keys: int) -> int:
        """How many keys so many should be padded to, where attention prepares its products for their number."""
        return usual_rows(num_keys) if self.attends_narrow else num_keys

    @torch.inference_mode()
    def prepare(self, num_rows: int) -> None:
        """Rounds of up to so many rows meet no product that their CPU has to prepare first."""
        if self._head.packed is not None:
            layer = self.layers[0]  # what is prepared depends on sizes only
            prepare([layer.qkv, layer.gate_up, self._head], [layer.out, layer.down], num_rows)

    def new_cache(self, num_rows: int, tap_width: int = 0) -> KVCache:
        """An empty cache of the right shape."""
        return KVCache(
            num_layers=self.num_layers,
            num_rows=num_rows,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
            device=self.device,
            tap_width=tap_width,
        )

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [n, Dh] of rotary positions [A, n] int64, A being 1 or the model's number of axes."""
        expanded = positions.expand(self._num_axes, -1)[:, None]
        cos, sin = self._rotary(self.embedding[:1], expanded if self._num_axes > 1 else expanded[0])
        return cos[0], sin[0]

    def rotary_rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [m, Dh] of text positions [m] int64, from a table that grows as needed."""
        needed = int(positions.max()) + 1
        if needed > len(self._rotary_table[0]):
            size = max(FIRST_ROTARY_ROWS, 1 << (needed - 1).bit_length())
            self._rotary_table = self.rotary(torch.arange(size, device=self.device)[None])
        cos, sin = self._rotary_table
        return cos.index_select(0, positions), sin.index_select(0, positions)

    @torch.inference_mode()
    def forward(self, batch: FlatBatch, cache: KVCache, tap_layers: Sequence[int] = ()) -> DecoderOutput:
        """All rows went through all layers; their keys and values are in the cache.

        Taps are numbered as transformers numbers hidden states: tap i has seen i layers, the last one the final norm.
        """
        hidden = batch.embeddings
        cos, signed_sin = batch.cos[:, None], signed(batch.sin)[:, None]
        shapes = [self._padded(group) for group in batch.groups]
        read = _Reading.of(batch, self.num_layers)
        kept: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            query = self._cache_rows(index, layer, hidden, cos, signed_sin, batch, cache)
            groups: Sequence[RowGroup] = batch.groups
            if read is not None and index == self.num_layers - 1:
                hidden, query, groups = hidden.index_select(0, read.rows), query.index_select(0, read.rows), read.groups
                if not len(hidden):
                    break
            mixed = self._attend(index, query, groups, shapes, cache)
            hidden = self._added(hidden, layer.out, mixed)
            hidden = self._feed_forward(layer, hidden)
            if index < len(batch.deepstack):
                rows, added = batch.deepstack[index]
                hidden = hidden.index_add(0, rows, added)
            kept[index + 1] = hidden
        hidden = F.rms_norm(hidden, (self.hidden_size,), self.final_norm, self.norm_eps)
        kept[self.num_layers] = hidden
        taps = torch.cat([kept[tap] for tap in tap_layers], dim=-1) if tap_layers else None
        return DecoderOutput(hidden, taps)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head applied to hidden rows: [m, D] -> [m, V]."""
        return self._head(hidden)

    def _cache_rows(
        self,
        index: int,
        layer: LayerWeights,
        hidden: Tensor,
        cos: Tensor,
        signed_sin: Tensor,
        batch: FlatBatch,
        cache: KVCache,
    ) -> Tensor:  # [m, H, Dh]
        """Keys and values of all rows are in the cache; returns their queries."""
        normed = F.rms_norm(hidden, (self.hidden_size,), layer.input_norm, self.norm_eps)
        heads = layer.qkv(normed).view(len(hidden), -1, self.head_dim)
        turning, values = heads.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, keys = turning.split((self.num_heads, self.num_kv_heads), dim=1)
            query = F.rms_norm(query, (self.head_dim,), layer.query_norm, self.norm_eps)
            keys = F.rms_norm(keys, (self.head_dim,), layer.key_norm, self.norm_eps)
            turning = torch.cat((query, keys), dim=1)
        turned = rotate(turning, cos, signed_sin)
        cache.write(index, batch.cache_rows, turned[:, self.num_heads :], values)
        return turned[:, : self.num_heads]

    def _attend(
        self,
        index: int,
        query: Tensor,  # [m, H, Dh]
        groups: Sequence[RowGroup],
        shapes: Sequence[_Padded],  # of the groups
        cache: KVCache,
    ) -> Tensor:  # [m, H * Dh]
        parts = [
            self._attend_group(index, query, group, shape, cache)
            for group, shape in zip(groups, shapes, strict=True)
            if group.rows
        ]
        padding = len(query) - (groups[-1].stop if groups else 0)
        if padding:
            parts.append(query.new_zeros(padding, self.num_heads * self.head_dim))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _padded(self, group: RowGroup) -> _Padded:
        """Decoding meets another batch and another number of rows in nearly every round; see ``attention_shape``."""
        if group.prompt_start is not None:
            return _Padded(group.batch, group.rows, group.keys, None)
        batch, rows = group.batch, group.rows
        if self.attends_narrow:
            batch, rows = attention_shape(batch, rows)
        keys, first = group.keys, group.first_positions
        if batch > group.batch and not isinstance(keys, slice):
            keys = F.pad(keys, (0, (batch - group.batch) * group.length))  # row 0 of the cache
        bias = None if first is None else causal_bias(F.pad(first, (0, batch - group.batch)), rows, group.length)
        is_wide = self.attends_wide and self.device.type == "cpu"
        dtype = torch.float32 if is_wide else self.dtype
        return _Padded(batch, rows, keys, fold_bias(bias, rows, self.num_heads, self.num_kv_heads, dtype=dtype))

    def _attend_group(self, index: int, query: Tensor, group: RowGroup, shape: _Padded, cache: KVCache) -> Tensor:
        keys, values = cache.read(index, shape.keys, shape.batch)
        rows = query[group.start : group.stop]
        if group.prompt_start is not None:
            return prompt_attention(rows, keys[:, 0], values[:, 0], group.prompt_start, self.scale)
        rows = rows.view(group.batch, group.rows, self.num_heads, self.head_dim)
        if (shape.batch, shape.rows) != (group.batch, group.rows):
            rows = F.pad(rows, (0, 0, 0, 0, 0, shape.rows - group.rows, 0, shape.batch - group.batch))
        mixed = grouped_attention(rows, keys, values, shape.bias, self.scale, is_wide=self.attends_wide)
        return mixed[: group.batch, : group.rows].reshape(group.batch * group.rows, -1)

    def _feed_forward(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        normed = F.rms_norm(hidden, (self.hidden_size,), layer.post_norm, self.norm_eps)
        gate, up = layer.gate_up(normed).chunk(2, dim=-1)
        return self._added(hidden, layer.down, F.silu(gate).mul_(up))

    def _added(self, hidden: Tensor, linear: FixedLinear, rows: Tensor) -> Tensor:
        """What a part of a layer adds to the residual stream; ranks that hold parts of ``linear`` meet here."""
        return linear.plus(hidden, rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The rows whose output somebody reads: the last layer has nothing to do for the others but keep keys and values."""

    rows: Tensor  # [n] int64
    groups: list[RowGroup]  # of these rows alone

    @classmethod
    def of(cls, batch: FlatBatch, num_layers: int) -> _Reading | None:
        """None where all rows are read."""
        if all(group.num_read is None for group in batch.groups) or len(batch.deepstack) >= num_layers:
            return None
        groups: list[RowGroup] = []
        for group in batch.groups:
            groups.append(group.read_part(groups[-1].stop if groups else 0))
        rows = [row for group in batch.groups for row in group.read_rows()]
        return cls(torch.tensor(rows, dtype=torch.int64, device=batch.cache_rows.device), groups)


def _check_supported(config: Any, layer: Any) -> None:
    if getattr(config, "hidden_act", "silu") != "silu":
        raise CheckpointError(f"decoder activation {config.hidden_act!r} is not supported, only silu")
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        raise CheckpointError(f"layer types {sorted(set(config.layer_types))} are not supported, only full_attention")
    for path in (
        "self_attn.q_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ):
        try:
            layer.get_submodule(path)
        except AttributeError:
            raise CheckpointError(
                f"decoder layer {type(layer).__name__} has no {path}; only Llama's layout works"
            ) from None


def _take_layer(layer: Any, share: bool) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    return LayerWeights(
        input_norm=layer.input_layernorm.weight.data,
        qkv=_side_by_side((attention.q_proj, attention.k_proj, attention.v_proj), share),
        query_norm=None if query_norm is None else query_norm.weight.data,
        key_norm=None if key_norm is None else key_norm.weight.data,
        out=_side_by_side((attention.o_proj,), share),
        post_norm=layer.post_attention_layernorm.weight.data,
        gate_up=_side_by_side((mlp.gate_proj, mlp.up_proj), share),
        down=_side_by_side((mlp.down_proj,), share),
    )


def _side_by_side(linears: Sequence[nn.Linear], share: bool) -> FixedLinear:
    """One product for several of the same input; when shared, their parameters become views of its weight."""
    biases = [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
    if len(linears) == 1:
        return FixedLinear(linears[0].weight.data, bias)
    weight = torch.cat([linear.weight.data for linear in linears])
    if share:
        start = 0
        for linear in linears:
            rows = len(linear.weight)  # fewer than out_features on a rank that holds some heads only
            linear.weight.data = weight[start : start + rows]
            start += rows
    return FixedLinear(weight, bias)
