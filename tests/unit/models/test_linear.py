"""A packed weight changes the speed, not the product; in bfloat16 a row's product does not depend on its neighbours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.linear import FixedLinear, can_pack, prepare, usual_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
def test_is_the_product(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(1)
    weight, bias = torch.randn(96, 64).to(dtype), torch.randn(96).to(dtype) if has_bias else None
    rows, residual = torch.randn(7, 64).to(dtype), torch.randn(7, 96).to(dtype)
    linear = FixedLinear(weight, bias)
    expected = F.linear(rows.double(), weight.double(), None if bias is None else bias.double())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(linear(rows).double(), expected, atol=tolerance, rtol=tolerance)
    added = linear.plus(residual, rows).double()
    torch.testing.assert_close(added, expected + residual.double(), atol=5 * tolerance, rtol=tolerance)


@pytest.mark.skipif(not can_pack(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize(("outputs", "inputs"), [(1536, 320), (320, 768), (448, 320)])
def test_a_packed_row_does_not_depend_on_its_neighbours(outputs: int, inputs: int) -> None:
    torch.manual_seed(2)
    linear = FixedLinear((torch.randn(outputs, inputs) / 20).bfloat16())
    rows = torch.randn(64, inputs).bfloat16()
    alone = torch.cat([linear(rows[index : index + 1]) for index in range(len(rows))])
    for count in (2, 9, 17, 64):
        assert torch.equal(linear(rows[:count]), alone[:count])


@pytest.mark.parametrize("count", [1, 5, 16, 17, 33, 61])
def test_padding_to_a_usual_number_of_rows_does_not_show(count: int) -> None:
    torch.manual_seed(3)
    linear = FixedLinear((torch.randn(96, 64) / 8).bfloat16())
    rows, residual = torch.randn(count, 64).bfloat16(), torch.randn(count, 96).bfloat16()
    expected = F.linear(rows.double(), linear.weight.double())
    torch.testing.assert_close(linear(rows).double(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(linear.plus(residual, rows).double(), expected + residual.double(), atol=1e-1, rtol=1e-1)


def test_usual_numbers_are_few_and_near() -> None:
    usual = [usual_rows(count) for count in range(1, 1025)]
    assert all(count <= number <= 1.125 * count for count, number in enumerate(usual, start=1))
    assert len(set(usual)) == 15 + 8 * 6 + 1
    assert [usual_rows(number) for number in usual] == usual


def test_products_are_prepared_for_the_usual_numbers_of_rows_until_the_time_is_over() -> None:
    made: list[tuple[str, int]] = []

    class Noted(FixedLinear):
        def __call__(self, rows: Tensor) -> Tensor:
            made.append(("alone", len(rows)))
            return super().__call__(rows)

        def plus(self, residual: Tensor, rows: Tensor) -> Tensor:
            made.append(("added", len(rows)))
            assert residual.shape == (len(rows), 8)
            return super().plus(residual, rows)

    linear = Noted(torch.randn(8, 4))
    assert prepare([linear], [linear], 20) == 18
    assert [rows for kind, rows in made if kind == "added"] == [*range(1, 17), 18, 20]
    assert [rows for kind, rows in made if kind == "alone"] == [*range(1, 17), 18, 20]
    assert prepare([linear], [], 20, limit_s=-1.0) == 0
