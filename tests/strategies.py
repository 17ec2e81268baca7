"""Hypothesis strategies for the values of speculative decoding: small, with zeros and ties on purpose."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from flashsd_ray.types import Proposal, SamplingParams


@st.composite
def simplexes(draw: st.DrawFn, size: int) -> Tensor:  # [size] float64
    """A distribution with rational weights; zeros and ties are common."""
    weights = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size).filter(any))
    probs = torch.tensor(weights, dtype=torch.float64)
    return probs / probs.sum()


@st.composite
def proposal_rows(draw: st.DrawFn, vocab_size: int, min_support: int = 1) -> tuple[Tensor, Tensor]:
    """The support ids and probabilities of one draft, [S] each with S <= V."""
    size = draw(st.integers(min_support, vocab_size))
    ids = draw(st.permutations(range(vocab_size)))[:size]
    return torch.tensor(ids), draw(simplexes(size))


def proposal_of(rows: list[tuple[Tensor, Tensor]]) -> Proposal:
    """Rows of any widths as one proposal; the narrower ones are filled with probability zero."""
    width = max(len(ids) for ids, _ in rows)
    support_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    support_probs = torch.zeros(len(rows), width, dtype=torch.float64)
    for row, (ids, probs) in enumerate(rows):
        support_ids[row, : len(ids)] = ids
        support_probs[row, : len(ids)] = probs
    return Proposal(support_ids=support_ids, support_probs=support_probs)


def samplings(max_new_tokens: int = 8, min_temperature: float = 0.3) -> st.SearchStrategy[SamplingParams]:
    """Sampled parameters of every kind."""
    return st.builds(
        SamplingParams,
        temperature=st.floats(min_temperature, 3.0),
        top_k=st.integers(0, 4),
        top_p=st.sampled_from([0.3, 0.55, 0.8, 0.95, 1.0]),
        seed=st.integers(-(2**70), 2**70),
        max_new_tokens=st.integers(1, max_new_tokens),
    )
