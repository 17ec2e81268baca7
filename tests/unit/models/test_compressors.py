"""Compressors: shapes, where latents stand, and what each formula says."""

from __future__ import annotations

import pytest
import torch

from flashsd_ray.errors import ConfigError
from flashsd_ray.models import compressors
from flashsd_ray.models.compressors import CompressorConfig
from flashsd_ray.models.compressors.base import bin_means, latent_positions, piece_bounds

WIDTH = 16


def make(name: str, num_latents: int = 4, seed: int = 0) -> compressors.Compressor:
    return compressors.build(
        CompressorConfig(name=name, width=WIDTH, num_latents=num_latents, num_heads=2, inner_width=8), seed
    )


def pieces(count: int = 3, tokens: int = 9) -> torch.Tensor:
    return torch.randn(count, tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def test_every_compressor_of_the_package_is_registered() -> None:
    assert compressors.names() == ("flash", "full", "hide", "latent", "pool")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="flash, full, hide, latent, pool"):
        make("zip")


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ConfigError, match="twice"):
        compressors.register("pool")(compressors.Compressor)


@pytest.mark.parametrize("name", compressors.names())
@pytest.mark.parametrize("tokens", [1, 2, 4, 9, 36])
def test_latents_are_as_many_as_announced(name: str, tokens: int) -> None:
    compressor = make(name)
    assert compressor(pieces(3, tokens)).shape == (3, compressor.num_latents(tokens), WIDTH)


@pytest.mark.parametrize("name", compressors.names())
def test_pieces_do_not_see_each_other(name: str) -> None:
    compressor, rows = make(name), pieces()
    alone = torch.cat([compressor(row[None]) for row in rows])
    torch.testing.assert_close(compressor(rows), alone)


def test_an_untrained_latent_is_the_mean_of_its_bin() -> None:
    rows = pieces(2, 8)
    torch.testing.assert_close(make("latent")(rows), rows.view(2, 4, 2, WIDTH).mean(dim=2))


def test_a_trained_latent_depends_on_tokens_outside_its_bin() -> None:
    compressor, rows = make("latent"), pieces(1, 8)
    torch.nn.init.normal_(compressor.output.weight)
    changed = rows.clone()
    changed[:, -1] += 1.0
    assert not torch.allclose(compressor(rows)[:, 0], compressor(changed)[:, 0])


def test_flash_is_the_formula_of_the_paper() -> None:
    compressor, rows = make("flash"), pieces(1, 9)
    expected = torch.softmax(compressor.queries @ rows[0].T, dim=-1) @ rows[0]
    torch.testing.assert_close(compressor(rows)[0], expected)


def test_full_changes_nothing_and_hide_leaves_nothing() -> None:
    rows = pieces()
    assert torch.equal(make("full")(rows), rows)
    assert make("hide")(rows).numel() == 0


def test_the_same_seed_gives_the_same_weights_and_no_draw_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, second, other = make("flash", seed=1), make("flash", seed=1), make("flash", seed=2)
    assert torch.equal(first.queries, second.queries)
    assert not torch.equal(first.queries, other.queries)
    assert torch.equal(before, torch.random.get_rng_state())


def test_latents_stand_in_the_middle_of_their_bins() -> None:
    assert latent_positions(10, 36, 4) == [14, 23, 32, 41]
    assert latent_positions(5, 4, 4) == [5, 6, 7, 8]
    assert latent_positions(5, 3, 1) == [6]
    assert latent_positions(5, 3, 0) == []


def test_bins_cover_every_token_once() -> None:
    means = bin_means(10, 4)
    assert means.count_nonzero(dim=0).tolist() == [1] * 10
    torch.testing.assert_close(means.sum(dim=1), torch.ones(4))


def test_a_long_segment_is_cut_into_even_pieces() -> None:
    assert piece_bounds(3, 288, 36) == [(3 + 36 * index, 36) for index in range(8)]
    assert piece_bounds(3, 40, 36) == [(3, 40)]
    assert piece_bounds(3, 288, 0) == [(3, 288)]
    assert [length for _, length in piece_bounds(0, 75, 36)] == [37, 38]


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        CompressorConfig(name="pool", width=WIDTH, num_latents=0)
    with pytest.raises(ConfigError, match="multiple"):
        CompressorConfig(name="latent", width=WIDTH, num_heads=3, inner_width=8)
