"""From what each request still misses in the cache to one flat batch of rows for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flashsd_ray.models.decoder import Decoder, FlatBatch, RowGroup
from flashsd_ray.models.kv_cache import CachedSequence, KVCache
from flashsd_ray.types import EncodedPrompt, SamplingParams, Verdict


@dataclass(slots=True, eq=False)
class OpenRequest:
    """What a target knows of one open request."""

    prompt: EncodedPrompt
    sampling: SamplingParams
    sequence: CachedSequence
    cos: Tensor  # [n, Dh] of the prompt rows
    sin: Tensor  # [n, Dh]
    digests: tuple[str, ...] = ()
    token_ids: list[int] = field(default_factory=list)  # committed: prompt and emitted
    last_verdict: Verdict | None = None

    @property
    def rotary_offset(self) -> int:
        """Rotary position minus sequence position of everything behind the prompt (not 0 with M-RoPE)."""
        return self.prompt.next_position - len(self.prompt)

    def rows_brought_by(self, verdict: Verdict) -> Tensor:  # [rows] int64
        """Cache rows of the positions that count since the verdict: the prompt's, or those from its anchor on."""
        # The taps of an accepted draft's row say what follows it.
        first = 0 if verdict.start == len(self.prompt) else verdict.start - 1
        return self.sequence.rows[first : verdict.next_start - 1]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Positions ``start .. stop - 1`` of one request that a forward brings into the cache."""

    request: OpenRequest
    start: int
    stop: int
    tail: tuple[int, ...]  # token ids of the positions behind the prompt: committed ones, then drafts

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def prompt_rows(self) -> int:
        """How many of the positions belong to the prompt."""
        return len(self) - len(self.tail)


def missing(
    request: OpenRequest,
    stop: int,  # committed positions to bring into the cache
    drafts: tuple[int, ...] = (),
) -> Span:
    """The span from the first uncached position to the last draft behind position ``stop - 1``."""
    start = request.sequence.length
    committed = request.token_ids[max(start, len(request.prompt)) : stop]
    return Span(request, start, max(start, stop) + len(drafts), (*committed, *drafts))


@dataclass(slots=True)
class _Rows:
    """Flat rows as they are collected, group by group."""

    embeddings: list[Tensor] = field(default_factory=list)
    cos: list[Tensor] = field(default_factory=list)
    sin: list[Tensor] = field(default_factory=list)
    cache_rows: list[Tensor] = field(default_factory=list)
    groups: list[RowGroup] = field(default_factory=list)
    deepstack: list[tuple[Tensor, tuple[Tensor, ...]]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.groups[-1].stop if self.groups else 0


def flatten(
    decoding: Sequence[Span],  # short and alike: computed together, padded to the longest
    filling: Sequence[Span],  # pieces of prompts, each on its own
    decoder: Decoder,
    cache: KVCache,
    num_read: Sequence[int] | None = None,  # of each piece, the last rows that are judged; None: all rows are read
) -> tuple[FlatBatch, list[int]]:
    """The batch, and the first flat row of every span (decoding ones first)."""
    rows = _Rows()
    firsts = []
    if decoding:
        width = max(len(span) for span in decoding)
        firsts = [index * width for index in range(len(decoding))]
        _add_decoding(rows, decoding, width, decoder, cache)
    for index, span in enumerate(filling):
        firsts.append(rows.count)
        _add_filling(rows, span, decoder, cache, None if num_read is None else num_read[index])
    _add_padding(rows, decoder)
    batch = FlatBatch(
        embeddings=_joined(rows.embeddings),
        cos=_joined(rows.cos),
        sin=_joined(rows.sin),
        cache_rows=_joined(rows.cache_rows),
        groups=rows.groups,
        deepstack=_joined_deepstack(rows.deepstack),
    )
    return batch, firsts


def _add_decoding(rows: _Rows, spans: Sequence[Span], width: int, decoder: Decoder, cache: KVCache) -> None:
    table: list[list[int]] = [[], [], []]  # token id, rotary position, cache row
    for span in spans:
        sequence, offset = span.request.sequence, span.request.rotary_offset
        padding = [0] * (width - len(span))  # padding writes to row 0, which nobody reads
        table[0] += [*span.tail, *padding]
        table[1] += [*range(span.start + offset, span.stop + offset), *padding]
        table[2] += [*(sequence.row(position) for position in range(span.start, span.stop)), *padding]
    token_ids, positions, cache_rows = torch.tensor(table, device=decoder.device)
    cos, sin = decoder.rotary_rows(positions)
    length = decoder.usual_keys(max(span.stop for span in spans))
    is_exact = width == 1 and all(span.stop == length for span in spans)
    starts = torch.tensor([span.start for span in spans], device=decoder.device)
    rows.embeddings.append(decoder.embedding.index_select(0, token_ids))
    rows.cos.append(cos)
    rows.sin.append(sin)
    rows.cache_rows.append(cache_rows)
    rows.groups.append(
        RowGroup(
            start=0,
            batch=len(spans),
            rows=width,
            keys=cache.select([span.request.sequence for span in spans], length),
            length=length,
            first_positions=None if is_exact else starts,
        )
    )


def _add_padding(rows: _Rows, decoder: Decoder) -> None:
    """The number of rows is one that comes often, where the first product of every number costs more than the product."""
    count = rows.count
    missing_rows = decoder.usual_rows(count) - count
    if missing_rows:
        rows.embeddings.append(rows.embeddings[0].new_zeros(missing_rows, rows.embeddings[0].shape[1]))
        rows.cos.append(rows.cos[0].new_zeros(missing_rows, rows.cos[0].shape[1]))
        rows.sin.append(rows.sin[0].new_zeros(missing_rows, rows.sin[0].shape[1]))
        rows.cache_rows.append(rows.cache_rows[0].new_zeros(missing_rows))  # row 0, which nobody reads


def _add_filling(rows: _Rows, span: Span, decoder: Decoder, cache: KVCache, num_read: int | None) -> None:
    request, first = span.request, rows.count
    prompt = slice(span.start, span.start + span.prompt_rows)
    rows.embeddings.append(request.prompt.embeddings[prompt].to(decoder.device, decoder.dtype))
    rows.cos.append(request.cos[prompt])
    rows.sin.append(request.sin[prompt])
    if span.tail:
        tail = torch.tensor(span.tail, device=decoder.device)
        positions = torch.arange(span.stop - len(span.tail), span.stop, device=decoder.device) + request.rotary_offset
        cos, sin = decoder.rotary_rows(positions)
        rows.embeddings.append(decoder.embedding.index_select(0, tail))
        rows.cos.append(cos)
        rows.sin.append(sin)
    rows.cache_rows.append(request.sequence.rows[span.start : span.stop])
    rows.groups.append(
        RowGroup(
            start=first,
            batch=1,
            rows=len(span),
            keys=cache.select([request.sequence], span.stop),
            length=span.stop,
            first_positions=None,
            prompt_start=span.start,
            num_read=num_read,
        )
    )
    if request.prompt.deepstack:
        rows.deepstack.append(_deepstack_rows(request.prompt, prompt, first, decoder))


def _deepstack_rows(
    prompt: EncodedPrompt, positions: slice, first: int, decoder: Decoder
) -> tuple[Tensor, tuple[Tensor, ...]]:
    is_visual = torch.zeros(len(prompt), dtype=torch.bool)
    for segment in prompt.segments:
        is_visual[segment.start : segment.stop] = True
    order = is_visual.cumsum(0) - 1  # which visual token a visual position holds
    chosen = order[positions][is_visual[positions]]
    flat = is_visual[positions].nonzero()[:, 0] + first
    added = tuple(level[chosen.to(level.device)].to(decoder.device, decoder.dtype) for level in prompt.deepstack)
    return flat.to(decoder.device), added


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined_deepstack(parts: list[tuple[Tensor, tuple[Tensor, ...]]]) -> list[tuple[Tensor, Tensor]]:
    if not parts:
        return []
    flat = torch.cat([rows for rows, _ in parts])
    return [(flat, torch.cat(level)) for level in zip(*(added for _, added in parts), strict=True)]
