"""The real sampler, keyed draws and all, has the target's distribution: chi-square tests with fixed seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from scipy import stats

from flashsd_ray.speculation import acceptance
from flashsd_ray.speculation.acceptance import AcceptanceRule
from flashsd_ray.speculation.decode import decode, run_to_end
from flashsd_ray.speculation.interfaces import Drafter
from flashsd_ray.types import SamplingParams
from tests.fakes import CoupledDrafter, Judge, ProposalDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt
from tests.unit.speculation.laws import reference_warp
from tests.unit.speculation.test_mutants import MUTANTS, mutant

VOCAB_SIZE, NUM_SAMPLES, NUM_TOKENS = 8, 800, 4
TARGET = seeded_logits(VOCAB_SIZE, 11, spread=1.2)
NEAR = seeded_logits(VOCAB_SIZE, 12, spread=0.4)
DRAFTERS: dict[str, Callable[[], Drafter]] = {
    "script": lambda: ScriptDrafter(lambda history, length: (2, 5, 2)[:length], 3),
    "proposal": lambda: ProposalDrafter(NEAR, 3, support_size=VOCAB_SIZE),
    "sparse proposal": lambda: ProposalDrafter(NEAR, 3, support_size=3),
    "same noise": lambda: CoupledDrafter(NEAR, 3),
}


def sampling(seed: int) -> SamplingParams:
    """A warp that matters: T != 1 and a nucleus smaller than the vocabulary."""
    return SamplingParams(temperature=0.6, top_p=0.9, seed=seed, max_new_tokens=NUM_TOKENS)


def expected_counts() -> dict[tuple[int, ...], float]:
    """How often each pair of the last two tokens should be seen."""
    laws: dict[tuple[int, ...], float] = {(0, 1): 1.0}
    for _ in range(NUM_TOKENS):
        grown: dict[tuple[int, ...], float] = {}
        for history, weight in laws.items():
            for token_id, prob in enumerate(reference_warp(TARGET(history), sampling(0)).tolist()):
                key = (*history[-1:], token_id)
                grown[key] = grown.get(key, 0.0) + weight * prob
        laws = grown
    return {key: weight * NUM_SAMPLES for key, weight in laws.items() if weight > 0}


def sample(rule: AcceptanceRule, name: str, judge: Judge | None = None) -> Counter[tuple[int, ...]]:
    """How often each pair of the last two tokens is seen."""
    counts: Counter[tuple[int, ...]] = Counter()
    drafter = DRAFTERS[name]()
    for seed in range(NUM_SAMPLES):
        rounds = decode("r", token_prompt((0, 1)), sampling(seed), TableTarget(TARGET, rule, judge), drafter)
        counts[run_to_end(rounds).token_ids[-2:]] += 1
    return counts


def chi_square(counts: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """The p-value, cells with fewer than five expected taken together."""
    assert set(counts) <= set(expected), "an impossible pair of tokens was drawn"
    large = [key for key, count in expected.items() if count >= 5]
    rest = NUM_SAMPLES - sum(expected[key] for key in large)
    cells = [(counts[key], expected[key]) for key in large]
    if rest >= 5:
        cells.append((NUM_SAMPLES - sum(count for count, _ in cells), rest))
    observed, wanted = zip(*cells, strict=True)
    total = sum(observed) / sum(wanted)
    return float(stats.chisquare(observed, [count * total for count in wanted]).pvalue)


@pytest.mark.parametrize(
    ("rule", "name"),
    [("coupled", "same noise"), *(("rejection", name) for name in DRAFTERS)],
)
def test_speculative_samples_have_the_targets_distribution(rule: AcceptanceRule, name: str) -> None:
    assert chi_square(sample(rule, name), expected_counts()) > 1e-3


@pytest.mark.parametrize(
    ("mutation", "name"),
    [("residual is the target", "proposal"), ("recovery follows the noise of the drafter", "same noise")],
)
def test_a_mutant_has_another_distribution(mutation: str, name: str) -> None:
    _, old, new = MUTANTS[mutation]
    counts = sample("rejection", name, mutant(acceptance, old, new).judge)
    assert chi_square(counts, expected_counts()) < 1e-4
