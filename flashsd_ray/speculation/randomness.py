"""Random draws that are functions of what they are for, not of when they happen.

Every draw is keyed by (request seed, position, purpose) and, where tokens are compared, by token id. So the output of a
request does not depend on batching, placement, retries or the order of arrival, and no global generator is touched.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014): increment and multipliers of a mixer that passes BigCrush.
_WORD = 2**64 - 1
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
# 52 bits and a half keep a uniform strictly inside (0, 1): with 53 the largest would round to one, whose log is zero.
_UNIFORM_BITS = 52


class Purpose(IntEnum):
    """What a draw decides; the number is part of its key."""

    TOKEN = 0  # the target's own token, and the draft of a drafter that follows the same noise
    DRAFT = 1  # a draft drawn independently of the target's token
    ACCEPT = 2  # whether a draft stands
    RECOVER = 3  # the token instead of a rejected draft
    BONUS = 4  # the token after a block that stood


class Draws(Protocol):
    """Where an acceptance rule gets its randomness from."""

    def accept(self, probability: float, position: int) -> bool:
        """True with the given probability."""
        ...

    def token(
        self,
        probs: Tensor,  # [V] float64, sums to one
        position: int,
        purpose: Purpose,
    ) -> int:
        """A token id drawn from the distribution."""
        ...


class KeyedDraws:
    """The draws of one request."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def accept(self, probability: float, position: int) -> bool:
        """True with the given probability, the same at every call for one position."""
        return keyed_uniform(draw_key(self.seed, position, Purpose.ACCEPT)) < probability

    def token(
        self,
        probs: Tensor,  # [V] float64
        position: int,
        purpose: Purpose,
    ) -> int:
        """A token id drawn from the distribution, the same at every call for one position and purpose."""
        return int(gumbel_choice(probs, key_tensor([draw_key(self.seed, position, purpose)], probs.device)[0]))


def draw_key(
    seed: int,
    position: int,
    purpose: Purpose,
    round_index: int = 0,  # only for drafts that are drawn again when a later round drafts the same position
) -> int:  # 64 bits
    """The key of one draw; different arguments give keys that look independent."""
    key = _mix(seed + _INCREMENT)
    for word in (position, purpose, round_index):
        key = _mix((key ^ (word & _WORD)) + _INCREMENT)
    return key


def keyed_uniform(key: int, token_id: int = 0) -> float:  # in (0, 1)
    """The uniform number that belongs to a key and a token."""
    bits = _mix(key + (token_id + 1) * _INCREMENT)
    return float(((bits >> (64 - _UNIFORM_BITS)) + 0.5) * 2.0**-_UNIFORM_BITS)


def keyed_uniforms(
    keys: Tensor,  # [..] int64
    token_ids: Tensor,  # [S] or [.., S] int64
) -> Tensor:  # [.., S] float64 in (0, 1)
    """The uniform numbers that belong to each key and each token; equal to keyed_uniform bit for bit."""
    bits = keys.unsqueeze(-1) + (token_ids + 1) * _signed(_INCREMENT)
    # In place: over a vocabulary the memory traffic is what costs.
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        # int64 shifts copy the sign bit; the mask makes the shift a logical one.
        bits ^= (bits >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        bits *= _signed(multiplier)
    high = (bits >> (64 - _UNIFORM_BITS)).bitwise_and_((1 << _UNIFORM_BITS) - 1)
    return high.to(torch.float64).add_(0.5).mul_(2.0**-_UNIFORM_BITS)


def key_tensor(keys: list[int], device: torch.device | None = None) -> Tensor:  # [R] int64
    """The keys as a tensor that keyed_uniforms and gumbel_choice take."""
    return torch.tensor([_signed(key) for key in keys], dtype=torch.int64, device=device)


def gumbel_choice(
    probs: Tensor,  # [.., S] float64, need not sum to one
    keys: Tensor,  # [..] int64
    token_ids: Tensor | None = None,  # [S] or [.., S] int64, what the columns stand for; None: 0 .. S-1
) -> Tensor:  # [..] int64
    """One token id for each row, drawn from its probabilities with the noise of its key.

    Two distributions drawn with one key give the same token always when they are equal, and mostly when they are close:
    with probability at least (1 - TV) / (1 + TV). The noise belongs to token ids, so a distribution over part of the
    vocabulary meets the same noise.

    Source: the Gumbel-max trick, written as a race of exponential clocks: argmax(log p + G) = argmax(p / E). The bound
    is from Daliri et al. 2024, arXiv 2408.07978.
    """
    if token_ids is None:
        token_ids = torch.arange(probs.shape[-1], device=probs.device)
    clocks = keyed_uniforms(keys, token_ids).log_().neg_()
    winners = torch.div(probs, clocks, out=clocks).argmax(-1, keepdim=True)
    return token_ids.expand(probs.shape).gather(-1, winners).squeeze(-1)


def _mix(word: int) -> int:
    word &= _WORD
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        word = ((word ^ (word >> shift)) * multiplier) & _WORD
    return word


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
