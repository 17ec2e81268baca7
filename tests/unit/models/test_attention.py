"""Grouped attention is attention: it equals the textbook formula, in pieces too, and rows do not see their neighbours."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from flashsd_ray.models import attention
from flashsd_ray.models.attention import (
    attention_shape,
    causal_bias,
    fold_bias,
    grouped_attention,
    prompt_attention,
    rotate,
    signed,
)


def textbook(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """One head of one sequence after the other, in float64."""
    batch, rows, heads, width = query.shape
    group = heads // len(keys)
    out = torch.zeros(batch, rows, heads, width, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            k, v = keys[h // group, b].double(), values[h // group, b].double()
            scores = query[b, :, h].double() @ k.T * scale
            out[b, :, h] = torch.softmax(scores if bias is None else scores + bias[b].double(), dim=-1) @ v
    return out.view(batch, rows, heads * width)


def random_case(batch: int, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(batch * 100 + rows)
    query = torch.randn(batch, rows, 6, 8)
    keys, values = torch.randn(2, 3, batch, length, 8)[0], torch.randn(3, batch, length, 8)
    return query, keys, values, causal_bias(torch.arange(batch) + length - rows - batch + 1, rows, length)


@pytest.mark.parametrize(("batch", "rows", "length"), [(1, 1, 9), (1, 5, 9), (4, 1, 17), (3, 4, 12)])
def test_equals_the_textbook(batch: int, rows: int, length: int) -> None:
    query, keys, values, bias = random_case(batch, rows, length)
    for mask in (None, bias):
        mixed = grouped_attention(query, keys, values, fold_bias(mask, rows, 6, 3), 0.3)
        torch.testing.assert_close(mixed.double(), textbook(query, keys, values, mask, 0.3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_wide", [True, False])
def test_rows_in_bfloat16_do_not_see_who_stands_beside_them(is_wide: bool) -> None:
    query, keys, values, _ = random_case(3, 4, 24)
    query, keys, values = query.bfloat16(), keys.bfloat16(), values.bfloat16()
    mixed = grouped_attention(query, keys, values, None, 0.25, is_wide=is_wide)
    for row in range(4):
        alone = grouped_attention(query[:1, row : row + 1], keys[:, :1], values[:, :1], None, 0.25, is_wide=is_wide)
        assert torch.equal(alone[0, 0], mixed[0, row])


@pytest.mark.parametrize("is_wide", [True, False])
def test_keys_of_padding_change_nothing(is_wide: bool) -> None:
    query, keys, values, bias = random_case(3, 4, 24)
    query, keys, values, bias = query.bfloat16(), keys.bfloat16(), values.bfloat16(), bias.bfloat16()
    mixed = grouped_attention(query, keys, values, fold_bias(bias, 4, 6, 3), 0.25, is_wide=is_wide)
    more = torch.full((3, 3, 8, 8), 100.0, dtype=torch.bfloat16)
    hidden = torch.full((3, 4, 8), attention.MASKED, dtype=torch.bfloat16)
    padded = grouped_attention(
        query,
        torch.cat((keys, more), dim=2),
        torch.cat((values, more), dim=2),
        fold_bias(torch.cat((bias, hidden), dim=2), 4, 6, 3),
        0.25,
        is_wide=is_wide,
    )
    torch.testing.assert_close(padded, mixed)  # not bit for bit: a float32 product may go by its size


@pytest.mark.parametrize(("tiles", "dots", "is_wide"), [(True, True, True), (False, True, False), (False, False, True)])
def test_the_kind_of_processor_decides_how_answers_attend(
    tiles: bool, dots: bool, is_wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dots)
    assert attention.attends_wide_here() is is_wide


def test_pieces_of_a_long_prompt_join_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys, values, bias = random_case(1, 20, 40)
    folded = fold_bias(bias, 20, 6, 3)
    whole = grouped_attention(query, keys, values, folded, 0.3)
    monkeypatch.setattr(attention, "MAX_SCORES", 7 * 6 * 40)
    torch.testing.assert_close(grouped_attention(query, keys, values, folded, 0.3), whole)


def prompt_case(dtype: torch.dtype, length: int = 37) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    return (
        torch.randn(length, 6, 8).to(dtype),
        torch.randn(3, length, 8).to(dtype),
        torch.randn(3, length, 8).to(dtype),
    )


@pytest.mark.parametrize("tile", [1, 4, 16, 64])
@pytest.mark.parametrize("start", [0, 5, 16])
def test_a_prompt_equals_the_textbook_whatever_its_tiles(
    tile: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attention.TILE_ROWS, "cpu", tile)
    query, keys, values = prompt_case(torch.float32)
    bias = causal_bias(torch.tensor([start]), len(query) - start, len(query))
    expected = textbook(query[None, start:], keys[:, None], values[:, None], bias, 0.3)[0]
    mixed = prompt_attention(query[start:], keys, values, start, 0.3)
    torch.testing.assert_close(mixed.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_prompt_in_pieces_has_the_bits_of_the_whole_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.TILE_ROWS, "cpu", 8)
    query, keys, values = prompt_case(torch.bfloat16)
    whole = prompt_attention(query, keys, values, 0, 0.25)
    for cuts in ([0, 37], [0, 1, 37], [0, 8, 9, 24, 37], [0, 30, 36, 37]):
        parts = [
            prompt_attention(query[start:stop], keys[:, :stop], values[:, :stop], start, 0.25)
            for start, stop in itertools.pairwise(cuts)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_causal_bias_hides_exactly_the_future() -> None:
    bias = causal_bias(torch.tensor([2, 0]), rows=2, length=5)
    assert (bias == 0).tolist() == [
        [[True, True, True, False, False], [True, True, True, True, False]],
        [[True, False, False, False, False], [True, True, False, False, False]],
    ]


def test_rotation_is_the_one_of_llama() -> None:
    torch.manual_seed(0)
    heads, angles = torch.randn(5, 3, 8), torch.randn(5, 1, 4)
    cos, sin = torch.cat((angles.cos(),) * 2, -1), torch.cat((angles.sin(),) * 2, -1)
    first, second = heads[..., :4], heads[..., 4:]
    expected = torch.cat(
        (first * cos[..., :4] - second * sin[..., :4], second * cos[..., :4] + first * sin[..., :4]), -1
    )
    torch.testing.assert_close(rotate(heads, cos, signed(sin)), expected)


def test_few_shapes_of_attention_hold_every_batch_and_number_of_rows() -> None:
    shapes = set()
    for batch, rows in itertools.product(range(1, 33), range(1, 10)):
        padded_batch, padded_rows = attention_shape(batch, rows)
        assert batch <= padded_batch < batch + 4
        assert rows <= padded_rows <= rows + 1
        shapes.add((padded_batch, padded_rows))
    assert len(shapes) == 14 * 6
    assert attention_shape(1, 1) == (1, 1)  # what plain decoding of one request is
