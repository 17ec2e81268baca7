"""Keyed draws: one function in two forms, uniform, and independent across everything that is part of the key."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from flashsd_ray.speculation.randomness import (
    KeyedDraws,
    Purpose,
    draw_key,
    gumbel_choice,
    key_tensor,
    keyed_gumbels,
    keyed_uniform,
    keyed_uniforms,
)
from tests.strategies import simplexes

P_VALUE = 1e-3
words = st.integers(0, 2**64 - 1)


@given(st.lists(words, min_size=1, max_size=4), st.lists(st.integers(0, 2**31), min_size=1, max_size=5))
def test_tensor_and_scalar_forms_are_the_same_function(keys: list[int], token_ids: list[int]) -> None:
    uniforms = keyed_uniforms(key_tensor(keys), torch.tensor(token_ids))
    assert uniforms.tolist() == [[keyed_uniform(key, token_id) for token_id in token_ids] for key in keys]
    assert bool(((uniforms > 0) & (uniforms < 1)).all())


def test_the_extreme_uniforms_stay_inside_the_interval() -> None:
    for high_bits in (0, 2**52 - 1):
        uniform = (high_bits + 0.5) * 2.0**-52
        assert 0.0 < uniform < 1.0


def test_keys_are_pinned() -> None:
    """Stored outputs can be replayed only while these numbers stay."""
    assert draw_key(0, 0, Purpose.TOKEN) == 2391539541053276776
    assert draw_key(-1, 12, Purpose.ACCEPT, 3) == 4717184661976149178
    assert keyed_uniform(draw_key(7, 5, Purpose.DRAFT), 9) == 0.8557372504848743


def test_tokens_count_through_the_published_stream() -> None:
    """The first outputs of SplitMix64 with seed 1234567, as many implementations list them."""
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
    for token_id, output in enumerate(published):
        assert keyed_uniform(1234567, token_id) == ((output >> 12) + 0.5) * 2.0**-52


def test_every_part_of_the_key_matters() -> None:
    keys = {draw_key(*parts) for parts in product(range(-3, 4), range(20), Purpose, range(4))}
    assert len(keys) == 7 * 20 * len(Purpose) * 4


def sample(**fixed: int) -> list[float]:
    """Uniform numbers along the part of the key that is not fixed."""
    ranges = {name: [fixed[name]] if name in fixed else range(20_000) for name in ("seed", "position", "token_id")}
    return [
        keyed_uniform(draw_key(seed, position, Purpose.TOKEN), token_id)
        for seed, position, token_id in product(*ranges.values())
    ]


@pytest.mark.parametrize(
    "fixed", [{"position": 3, "token_id": 5}, {"seed": 3, "token_id": 5}, {"seed": 3, "position": 5}]
)
def test_draws_are_uniform_along_every_part_of_the_key(fixed: dict[str, int]) -> None:
    assert stats.kstest(sample(**fixed), "uniform").pvalue > P_VALUE


def neighbours(name: str, index: int) -> tuple[int, int]:
    """Two keys that differ in what is named."""
    match name:
        case "position":
            return draw_key(1, index, Purpose.TOKEN), draw_key(1, index + 1, Purpose.TOKEN)
        case "seed":
            return draw_key(index, 7, Purpose.TOKEN), draw_key(index + 1, 7, Purpose.TOKEN)
        case "seed and position":
            return draw_key(index, 8, Purpose.TOKEN), draw_key(index + 1, 7, Purpose.TOKEN)
        case "round":
            return draw_key(1, index, Purpose.DRAFT, 1), draw_key(1, index, Purpose.DRAFT, 2)
        case _:
            one, other = name.split(" and ")
            return draw_key(1, index, Purpose[one]), draw_key(1, index, Purpose[other])


PURPOSES = [f"{one.name} and {other.name}" for one, other in combinations(Purpose, 2)]


@pytest.mark.parametrize("name", ["position", "seed", "seed and position", "round", *PURPOSES])
def test_neighbouring_keys_give_independent_draws(name: str) -> None:
    ones, others = zip(*(neighbours(name, index) for index in range(6000)), strict=True)
    assert independence([keyed_uniform(key) for key in ones], [keyed_uniform(key) for key in others]) > P_VALUE


def test_neighbouring_tokens_get_independent_draws() -> None:
    uniforms = keyed_uniforms(key_tensor([draw_key(1, 2, Purpose.TOKEN)]), torch.arange(20_001))[0].tolist()
    assert independence(uniforms[:-1], uniforms[1:]) > P_VALUE


def independence(ones: list[float], others: list[float]) -> float:
    """The p-value of a chi-square test on an 8 x 8 table."""
    table = torch.zeros(8, 8, dtype=torch.int64)
    for one, other in zip(ones, others, strict=True):
        table[int(one * 8), int(other * 8)] += 1
    return float(stats.chi2_contingency(table.numpy()).pvalue)


@pytest.mark.parametrize("probs", [(0.05, 0.15, 0.3, 0.5), (0.0, 0.999, 0.001, 0.0), (0.25, 0.25, 0.25, 0.25)])
def test_gumbel_choice_follows_its_probabilities(probs: tuple[float, ...]) -> None:
    keys = key_tensor([draw_key(seed, 4, Purpose.TOKEN) for seed in range(20_000)])
    rows = torch.tensor(probs, dtype=torch.float64).expand(len(keys), -1)
    counts = torch.bincount(gumbel_choice(rows, keys), minlength=4).tolist()
    seen = [(count, prob * len(keys)) for count, prob in zip(counts, probs, strict=True) if prob > 0]
    assert sum(count for count, _ in seen) == len(keys), "an impossible token was drawn"
    assert stats.chisquare(*zip(*seen, strict=True)).pvalue > P_VALUE


@given(st.data(), words)
def test_gumbel_choice_does_not_look_at_the_scale_or_the_order_of_columns(data: st.DataObject, key: int) -> None:
    probs: Tensor = data.draw(simplexes(5))
    keys = key_tensor([key])[0]
    chosen = gumbel_choice(probs, keys)
    order = torch.tensor(data.draw(st.permutations(range(5))))
    assert gumbel_choice(probs[order], keys, order) == chosen
    assert gumbel_choice(probs * 0.37, keys) == chosen
    assert probs[chosen] > 0


@pytest.mark.parametrize("num_tokens", [7, 3000])
def test_noise_on_logits_picks_what_gumbel_choice_picks(num_tokens: int) -> None:
    keys = key_tensor([draw_key(seed, 9, Purpose.TOKEN) for seed in range(100)])  # more than are computed at a time
    logits = torch.randn(100, num_tokens, generator=torch.Generator().manual_seed(1))
    noise = keyed_gumbels(keys, num_tokens)
    assert torch.equal((logits + noise).argmax(-1), gumbel_choice(logits.double().softmax(-1), keys))
    uniforms = keyed_uniforms(keys, torch.arange(num_tokens))
    torch.testing.assert_close(noise.double(), -(-uniforms.log()).log(), rtol=1e-5, atol=1e-5)


def test_coupled_choices_agree_at_least_as_often_as_promised() -> None:
    ours, theirs = torch.tensor([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]], dtype=torch.float64)
    keys = key_tensor([draw_key(seed, 4, Purpose.TOKEN) for seed in range(10_000)])
    agreed = gumbel_choice(ours.expand(len(keys), 3), keys) == gumbel_choice(theirs.expand(len(keys), 3), keys)
    distance = float((ours - theirs).clamp(min=0).sum())
    assert float(agreed.double().mean()) > (1 - distance) / (1 + distance)


def test_no_global_generator_is_touched() -> None:
    before = torch.random.get_rng_state()
    draws = KeyedDraws(5)
    probs = torch.full((8,), 0.125, dtype=torch.float64)
    assert draws.token(probs, 3, Purpose.BONUS) == draws.token(probs, 3, Purpose.BONUS)
    assert draws.accept(0.5, 3) == draws.accept(0.5, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_certain_and_impossible_acceptance() -> None:
    assert all(KeyedDraws(seed).accept(1.0, 0) for seed in range(100))
    assert not any(KeyedDraws(seed).accept(0.0, 0) for seed in range(100))
