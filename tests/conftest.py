"""What every test shares: markers by folder, one thread, fixed seeds, the bundled clips."""

from __future__ import annotations

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from flashsd_ray.models.pretrained import BUNDLED
from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports

TESTS = Path(__file__).parent
MARKERS = ("unit", "contract", "ray", "e2e", "gpu", "architecture")

# The same examples for everybody; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("repeat", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

torch.set_num_threads(1)
ensure_torchvision_imports()  # before any test imports transformers, whose processors import it
# Read when transformers is imported, which is later: what commands write to standard error is compared.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test has the marker of its folder; those in gpu/ are skipped where there is none."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKERS:
            item.add_marker(folder)
        if folder == "gpu" and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def clips() -> list[Path]:
    """The bundled videos."""
    found = sorted((BUNDLED / "demo" / "clips").glob("*.mp4"))
    assert found, "no clip is bundled"
    return found


@pytest.fixture(scope="session")
def clip(clips: list[Path]) -> Path:
    """One bundled video."""
    return clips[0]
