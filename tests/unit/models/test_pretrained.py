"""Checkpoints that cannot be loaded are refused in one sentence that says why and what would work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flashsd_ray.errors import CheckpointError
from flashsd_ray.models.pretrained import FAMILIES, load_target, resolve_device, resolve_dtype


def test_an_unsupported_architecture_is_refused_by_name_with_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "paligemma"}))
    with pytest.raises(CheckpointError, match="'paligemma' is not supported") as refused:
        load_target(str(tmp_path))
    assert all(family.name in str(refused.value) for family in FAMILIES.values())


def test_a_missing_directory_is_called_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        load_target(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["", "{", '{"model_type": "no-such-model"}'])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as refused:
        load_target(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_devices_and_dtypes_are_resolved_or_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("float32", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(CheckpointError, match="unknown device"):
        resolve_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(CheckpointError, match="sees no GPU"):
            resolve_device("cuda")
