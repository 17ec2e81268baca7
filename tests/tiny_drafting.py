"""A random target's view, prompts with pictures and verdicts with random taps: everything a drafter is fed."""

from __future__ import annotations

import torch

from flashsd_ray.models.drafters import TargetView
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.types import EncodedPrompt, Verdict, VisualSegment

VOCAB = 50
WIDTH = 32
TEXT_HEAD = 3  # positions before the pictures
Drafter = NeuralDrafter | FreeDrafter


def tiny_view(num_layers: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> TargetView:
    """The view of a target with random embedding and head."""
    generator = torch.Generator().manual_seed(seed)
    return TargetView(
        hidden_size=WIDTH,
        num_layers=num_layers,
        vocab_size=VOCAB,
        embedding=torch.randn(VOCAB, WIDTH, generator=generator).to(dtype),
        lm_head=torch.randn(VOCAB, WIDTH, generator=generator).to(dtype),
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        fingerprint=f"tiny-{num_layers}-{seed}",
    )


def tiny_prompt(pieces: tuple[int, ...] = (8, 8), text_tail: int = 5, seed: int = 0) -> EncodedPrompt:
    """A few words, pictures of so many tokens with a word between them, and some words more."""
    segments, position = [], TEXT_HEAD
    for index, tokens in enumerate(pieces):
        segments.append(VisualSegment(start=position, num_tokens=tokens, digest=str(index)))
        position += tokens + 1
    length = position + text_tail
    generator = torch.Generator().manual_seed(seed)
    return EncodedPrompt(
        token_ids=tuple(torch.randint(VOCAB, (length,), generator=generator).tolist()),
        embeddings=torch.randn(length, WIDTH, generator=generator),
        positions=torch.arange(length)[None],
        segments=tuple(segments),
    )


def tap_rows(drafter: Drafter, num_rows: int, seed: int) -> torch.Tensor | None:
    """Rows as the target would fuse them, from random taps; None when the drafter wants none."""
    if not drafter.tap_layers:
        return None
    generator = torch.Generator().manual_seed(seed)
    return drafter.fuse(torch.randn(num_rows, len(drafter.tap_layers) * WIDTH, generator=generator))


def first_verdict(drafter: Drafter, request_id: str, prompt: EncodedPrompt, token_id: int, seed: int = 0) -> Verdict:
    """The verdict of a prefill."""
    return Verdict(
        request_id=request_id,
        round=0,
        start=len(prompt),
        num_accepted=0,
        token_ids=(token_id,),
        taps=tap_rows(drafter, len(prompt), seed),
    )


def next_verdict(drafter: Drafter, last: Verdict, token_ids: tuple[int, ...], seed: int = 0) -> Verdict:
    """The verdict of a later round that commits these tokens."""
    return Verdict(
        request_id=last.request_id,
        round=last.round + 1,
        start=last.next_start,
        num_accepted=len(token_ids) - 1,
        token_ids=token_ids,
        taps=tap_rows(drafter, len(token_ids), seed),
    )
