"""What every acceptance rule must obey, as functions of the module that holds the rules.

The tests run them on flashsd_ray.speculation.acceptance and, to show that they have teeth, on mutants of it. Exact laws
run the module's own ``judge`` with draws that try every outcome, so loops and wiring are under test, not only formulas.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import product
from types import ModuleType
from typing import TypeVar
from unittest import mock

import torch
from torch import Tensor

from flashsd_ray.speculation.decode import decode, run_to_end
from flashsd_ray.speculation.interfaces import Drafter
from flashsd_ray.speculation.randomness import KeyedDraws, Purpose
from flashsd_ray.types import DraftBlock, FinishReason, SamplingParams
from tests.fakes import CoupledDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt
from tests.strategies import proposal_of

T = TypeVar("T")
History = tuple[int, ...]
Key = tuple[int, Purpose]
NextProbs = Callable[[History], Tensor]  # [V] float64
DraftRow = tuple[Tensor, Tensor]  # support ids and probabilities, [S] each
EXACT = 1e-12


class EnumeratedDraws:
    """Draws that follow a path of outcomes and remember where they could have gone elsewhere."""

    def __init__(self, path: tuple[int, ...], used: Collection[Key] = ()) -> None:
        self.path = path
        self.weight = 1.0
        self.branches: list[tuple[int, ...]] = []
        self._depth = 0
        self._keys = set(used)

    def accept(self, probability: float, position: int) -> bool:
        """One of the two outcomes, the other one noted."""
        return self._follow([1.0 - probability, probability], (position, Purpose.ACCEPT)) == 1

    def token(self, probs: Tensor, position: int, purpose: Purpose) -> int:
        """One of the possible tokens, the others noted."""
        return self._follow(probs.tolist(), (position, purpose))

    def _follow(self, weights: list[float], key: Key) -> int:
        assert key not in self._keys, f"the noise of {key} is used twice"
        assert min(weights) >= 0.0, f"negative probability in {weights}"
        assert abs(sum(weights) - 1.0) < EXACT, f"not a distribution: {weights}"
        self._keys.add(key)
        options = [option for option, weight in enumerate(weights) if weight > 0.0]
        if self._depth < len(self.path):
            taken = self.path[self._depth]
        else:
            taken = options[0]
            self.branches.extend((*self.path, option) for option in options[1:])
            self.path += (taken,)
        self._depth += 1
        self.weight *= weights[taken]
        return taken


def outcomes(run: Callable[[EnumeratedDraws], T], used: Collection[Key] = ()) -> Iterator[tuple[float, T]]:
    """Every outcome of a random function with its probability; it may not use noise that was used before."""
    paths: list[tuple[int, ...]] = [()]
    while paths:
        draws = EnumeratedDraws(paths.pop(), used)
        result = run(draws)
        paths.extend(draws.branches)
        yield draws.weight, result


def reference_warp(logits: Tensor, sampling: SamplingParams) -> Tensor:  # [V] -> [V]
    """The warp written again, token by token, in plain Python."""
    order = sorted(range(len(logits)), key=lambda token_id: (-float(logits[token_id]), token_id))
    top_k = 1 if sampling.is_greedy else sampling.top_k or len(order)
    highest = float(logits[order[0]])
    weights = {i: math.exp((float(logits[i]) - highest) / (sampling.temperature or 1.0)) for i in order[:top_k]}
    total = math.fsum(weights.values())
    kept: dict[int, float] = {}
    for token_id, weight in weights.items():
        if math.fsum(kept.values()) / total < sampling.top_p:
            kept[token_id] = weight
    probs = torch.zeros(len(logits), dtype=torch.float64)
    for token_id, weight in kept.items():
        probs[token_id] = weight / math.fsum(kept.values())
    return probs


def block_law_error(
    rules: ModuleType,
    rule: str,
    next_logits: NextProbs,  # of the target
    draft_rows: Sequence[DraftRow],  # what each draft is drawn from, length K
    sampling: SamplingParams,
    *,
    with_proposal: bool = True,  # False: the drafter keeps it to itself, so the block counts as deterministic
    cut: Callable[[History], int] = len,  # how many of the drafts are sent
) -> float:
    """Largest difference between the law of the first K + 1 tokens and the target's own, by trying everything."""
    length = len(draft_rows) + 1
    law: dict[History, float] = defaultdict(float)
    for draft_weight, drawn in _drafts(draft_rows):
        sent = drawn[: cut(drawn)]
        proposal = proposal_of(list(draft_rows[: len(sent)])) if with_proposal and sent else None
        block = DraftBlock(request_id="r", round=1, start=1, token_ids=sent, proposal=proposal)
        logits = torch.stack([next_logits(sent[:row]) for row in range(len(sent) + 1)])
        # Only the coupled rule may look at the noise that a drafter may have looked at.
        purposes = [Purpose.DRAFT] if rule == "coupled" else [Purpose.DRAFT, Purpose.TOKEN]
        used = set(product(range(block.start + length), purposes))
        for weight, judgement in outcomes(partial(_judge, rules, logits, block, sampling, rule), used):
            num_accepted, committed = judgement
            assert len(committed) == num_accepted + 1, "one token follows the accepted ones"
            assert committed[:num_accepted] == sent[:num_accepted], "accepted tokens are drafts"
            for tail_weight, tail in _continuations(next_logits, committed, length, sampling):
                law[tail] += draft_weight * weight * tail_weight
    expected = dict(_reversed_pairs(_continuations(next_logits, (), length, sampling)))
    return max(abs(law[key] - expected.get(key, 0.0)) for key in {*law, *expected})


def _judge(
    rules: ModuleType, logits: Tensor, block: DraftBlock, sampling: SamplingParams, rule: str, draws: EnumeratedDraws
) -> tuple[int, tuple[int, ...]]:
    with mock.patch.object(rules, "KeyedDraws", return_value=draws):
        num_accepted, token_ids = rules.judge(logits, block, sampling, rule)
    return num_accepted, token_ids


def _drafts(rows: Sequence[DraftRow]) -> Iterator[tuple[float, History]]:
    if not rows:
        yield 1.0, ()
        return
    for weight, head in _drafts(rows[:-1]):
        for token_id, prob in zip(rows[-1][0].tolist(), rows[-1][1].tolist(), strict=True):
            if prob > 0:
                yield weight * prob, (*head, token_id)


def _continuations(
    next_logits: NextProbs, prefix: History, length: int, sampling: SamplingParams
) -> Iterator[tuple[float, History]]:
    """Every way the target itself goes on from the prefix to the length, with its probability."""
    if len(prefix) == length:
        yield 1.0, prefix
        return
    for token_id, prob in enumerate(reference_warp(next_logits(prefix), sampling).tolist()):
        if prob > 0:
            for weight, tail in _continuations(next_logits, (*prefix, token_id), length, sampling):
                yield prob * weight, tail


def _reversed_pairs(pairs: Iterator[tuple[float, History]]) -> Iterator[tuple[History, float]]:
    return ((key, weight) for weight, key in pairs)


def plain_tokens(
    next_logits: NextProbs, prompt_ids: History, sampling: SamplingParams, eos_token_ids: Sequence[int] = ()
) -> tuple[History, FinishReason]:
    """What the target emits on its own, written without any code of the speculation package but the keyed draw."""
    history = prompt_ids
    while len(history) < len(prompt_ids) + sampling.max_new_tokens:
        probs = reference_warp(next_logits(history), sampling)
        token_id = KeyedDraws(sampling.seed).token(probs, len(history), Purpose.TOKEN)
        history = (*history, token_id)
        if token_id in eos_token_ids:
            return history[len(prompt_ids) :], FinishReason.STOP
    return history[len(prompt_ids) :], FinishReason.LENGTH


def assert_same_as_plain(
    rules: ModuleType,
    next_logits: NextProbs,
    prompt_ids: History,
    sampling: SamplingParams,
    drafter: Drafter,
    eos_token_ids: Sequence[int] = (),
    draft_length: int | None = None,
) -> None:
    """Speculative output, coupled or greedy, equals plain output token for token."""
    for judge in (None, rules.judge):  # the batched version and the reference
        target = TableTarget(next_logits, "coupled", judge)
        rounds = decode(
            "r",
            token_prompt(prompt_ids),
            sampling,
            target,
            drafter,
            eos_token_ids=eos_token_ids,
            draft_length=draft_length,
        )
        outcome = run_to_end(rounds)
        expected = plain_tokens(next_logits, prompt_ids, sampling, eos_token_ids)
        assert (outcome.token_ids, outcome.finish_reason) == expected


def draft_scripts(next_logits: NextProbs, vocab_size: int, sampling: SamplingParams, seed: int) -> dict[str, Drafter]:
    """Drafters from the best to the worst that can be thought of."""

    def oracle(history: History, length: int) -> History:
        return plain_tokens(next_logits, history, _with_budget(sampling, length))[0]

    def adversary(history: History, length: int) -> History:
        return tuple((token_id + 1) % vocab_size for token_id in oracle(history, length))

    def late_adversary(history: History, length: int) -> History:
        *right, last = oracle(history, length) or (0,)
        return (*right, (last + 1) % vocab_size)

    def noise(history: History, length: int) -> History:
        generator = torch.Generator().manual_seed(hash((seed, *history)) % 2**63)
        size = int(torch.randint(length + 1, (), generator=generator))
        return tuple(torch.randint(vocab_size, (size,), generator=generator).tolist())

    scripts = {"oracle": oracle, "adversary": adversary, "late adversary": late_adversary, "noise": noise}
    drafters: dict[str, Drafter] = {name: ScriptDrafter(script, 4) for name, script in scripts.items()}
    return drafters | {"coupled": CoupledDrafter(seeded_logits(vocab_size, seed + 1), 4)}


def _with_budget(sampling: SamplingParams, max_new_tokens: int) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
        max_new_tokens=max(max_new_tokens, 1),
    )
