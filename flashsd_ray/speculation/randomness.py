"""Random draws that are functions of what they are for, not of when they happen.

Every draw is keyed by (request seed, position, purpose) and, where tokens are compared, by token id. So the output of a
request does not depend on batching, placement, retries or the order of arrival, and no global generator is touched.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014): increment and multipliers of a mixer that passes BigCrush.
_WORD = 2**64 - 1
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
# Elements that are computed at a time. On a CPU more would not only leave its cache: the machine gives large temporaries
# out page by page, and 256 rows of 2048 took twice as long at once as 32 at a time (docs/log.md).
_CPU_CHUNK, _DEVICE_CHUNK = 2**16, 2**24
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
    key = _seed_key(seed)
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


def keyed_gumbels(
    keys: Tensor,  # [R] int64
    num_tokens: int,  # V
) -> Tensor:  # [R, V] float32
    """Gumbel noise for each key and each token: the race of ``gumbel_choice`` as something to add to logits.

    The most probable token after adding the noise times the temperature is the one that ``gumbel_choice`` would draw, up
    to rounding: good enough for drafts.
    """
    noise = torch.empty((len(keys), num_tokens), dtype=torch.float32, device=keys.device)
    token_ids = torch.arange(num_tokens, device=keys.device)
    chunk = rows_at_once(keys.device, num_tokens)
    for first in range(0, len(keys), chunk):
        clocks = noise[first : first + chunk]
        # In float64 as long as uniforms near one matter.
        clocks.copy_(keyed_uniforms(keys[first : first + chunk], token_ids).log_()).neg_().log_().neg_()
    return noise


def rows_at_once(device: torch.device, num_tokens: int) -> int:
    """Rows of so many float64 that fit a CPU's cache, elsewhere that keep temporaries small."""
    return max(1, (_CPU_CHUNK if device.type == "cpu" else _DEVICE_CHUNK) // num_tokens)


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


@lru_cache(maxsize=4096)  # asked for every row of every round
def _seed_key(seed: int) -> int:
    return _mix(seed + _INCREMENT)


def _mix(word: int) -> int:
    # Written out: a loop takes twice as long, and a round draws some hundred keys.
    first, second = _MULTIPLIERS
    word &= _WORD
    word = ((word ^ (word >> _SHIFTS[0])) * first) & _WORD
    word = ((word ^ (word >> _SHIFTS[1])) * second) & _WORD
    return word ^ (word >> _SHIFTS[2])


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
