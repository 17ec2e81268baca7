"""A rank's share of the weights, read from a checkpoint into the library's layers.

The layers are the library's own, built without memory; each parameter becomes the part that this rank holds. So the
decode loop takes them over as it takes over a whole model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashsd_ray.models.parallel.files import CheckpointFiles
from flashsd_ray.models.parallel.share import Share


def fill_layers(
    layers: nn.ModuleList,  # on the meta device
    files: CheckpointFiles,
    share: Share,
    *,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Every layer holds this rank's share.

    Raises:
        CheckpointError: a tensor is missing or damaged.
    """
    for index, layer in enumerate(layers):
        for name in [name for name, _ in layer.named_parameters()]:
            owner_name, _, kind = name.rpartition(".")
            rows, columns, is_mine = _part(owner_name.rpartition(".")[2], kind, share, head_dim)
            value = files.read(files.text(f"layers.{index}.{name}"), rows, columns) if is_mine else None
            _put(layer.get_submodule(owner_name), kind, None if value is None else value.to(device, dtype))
        files.release()  # a file is mapped while it is read: the pages of one layer, not of all


def head_rows(files: CheckpointFiles, share: Share, dtype: torch.dtype, device: torch.device) -> Tensor:
    """This rank's rows of a head of its own, as many as every other rank's: [ceil(V / R), D]."""
    rows = files.read(files.find("lm_head.weight"), share.vocabulary).to(device, dtype)
    return padded(rows, share)


def padded(rows: Tensor, share: Share) -> Tensor:
    """Rows of zeros behind those of the last ranks, so that all ranks hold the same number."""
    missing = share.widest_vocabulary - len(rows)
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def _part(linear: str, kind: str, share: Share, head_dim: int) -> tuple[range | None, range | None, bool]:
    """Rows, columns (None: all), and whether this rank holds anything of the parameter."""
    if linear == "q_proj":
        return _of_heads(share.heads, head_dim), None, True
    if linear in ("k_proj", "v_proj"):
        return _of_heads(share.kv_heads, head_dim), None, True
    if linear in ("gate_proj", "up_proj"):
        return share.units, None, True
    if linear in ("o_proj", "down_proj"):
        inputs = _of_heads(share.heads, head_dim) if linear == "o_proj" else share.units
        # A bias is added once, not by every rank.
        return (None, inputs, True) if kind == "weight" else (None, None, share.leads)
    return None, None, True


def _of_heads(heads: range, head_dim: int) -> range:
    return range(heads.start * head_dim, heads.stop * head_dim)


def _put(owner: nn.Module, kind: str, value: Tensor | None) -> None:
    parameter: Any = None if value is None else nn.Parameter(value, requires_grad=False)
    owner.register_parameter(kind, parameter)
