"""Matrix products with constant weights, laid out once for the processor that multiplies them.

In bfloat16 on a CPU, oneDNN brings a plain weight into its blocked layout in every call; for the few rows of decoding
that costs as much as the product itself. Packing once makes one row 1.5 to 2.5 times faster and sixteen rows no slower
than one, which is what verification lives on (docs/log.md). Packed weights are a second copy of the plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor


class FixedLinear:
    """``x @ weight.T + bias`` for inference; the result does not depend on whether the weight is packed."""

    __slots__ = ("bias", "packed", "weight")

    def __init__(
        self,
        weight: Tensor,  # [O, I]
        bias: Tensor | None = None,  # [O]
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.packed: Tensor | None = None
        if can_pack(weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)

    def __call__(self, rows: Tensor) -> Tensor:  # [m, I] -> [m, O]
        """The product."""
        if self.packed is None:
            return F.linear(rows, self.weight, self.bias)
        usual = _padded(rows)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(usual, self.packed, self.bias, "none", [], "")
        return result if usual is rows else result[: len(rows)]

    def plus(self, residual: Tensor, rows: Tensor) -> Tensor:  # [m, O], [m, I] -> [m, O]
        """The product added to ``residual``, in one pass."""
        if self.packed is not None:
            usual, added = _padded(rows), _padded(residual)
            result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(usual, added, self.packed, self.bias, "add")
            return result if usual is rows else result[: len(rows)]
        if self.bias is None:
            return torch.addmm(residual, rows, self.weight.t())
        return residual + F.linear(rows, self.weight, self.bias)


def prepare(
    alone: Sequence[FixedLinear],
    added: Sequence[FixedLinear],  # whose products are added to something
    num_rows: int,
    *,
    limit_s: float = 0.5,
) -> int:
    """Products of all usual numbers of rows up to ``num_rows`` are prepared, as far as the time goes; returns how many.

    Whoever measures what a round takes must not meet products that were never made before (docs/log.md).
    """
    ends_s, num_done = perf_counter() + limit_s, 0
    for rows in sorted({usual_rows(count) for count in range(1, num_rows + 1)}):
        if perf_counter() > ends_s:
            break
        for linear in alone:
            linear(linear.weight.new_zeros(rows, linear.weight.shape[1]))
        for linear in added:
            given = linear.weight.new_zeros(rows, linear.weight.shape[1])
            linear.plus(linear.weight.new_zeros(rows, linear.weight.shape[0]), given)
        num_done += 1
    return num_done


def usual_rows(num_rows: int) -> int:
    """The next of the numbers of rows that products are padded to: at most an eighth more, and 8 for each power of two.

    oneDNN prepares a product for every number of rows that it meets. That takes 0.4 to 1 ms, often longer than the product,
    and 0.6 MB for as long as it is one of the last thousand (docs/log.md).
    """
    step = 1 << max(0, num_rows.bit_length() - 4)
    return -(-num_rows // step) * step


def _padded(rows: Tensor) -> Tensor:  # [m, I] -> [>= m, I]
    """The rows themselves where they are of a usual number already."""
    missing = usual_rows(len(rows)) - len(rows) if rows.ndim == 2 else 0
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def can_pack(weight: Tensor) -> bool:
    """Whether this build of torch can pack the weight for this processor."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
