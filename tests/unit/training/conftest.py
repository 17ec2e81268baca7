"""A tiny target that the tests of drafter training share."""

from __future__ import annotations

import pytest
import torch

from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.answers import Answer
from tests.tiny_checkpoints import checkpoint
from tests.unit.training.drafter_parts import ask, greedy_questions, listed


@pytest.fixture(scope="session")
def target() -> PretrainedTarget:
    """A LLaVA 1.5 with random weights."""
    torch.set_num_threads(1)
    return load_target(str(checkpoint("llava15")), dtype="float32")


@pytest.fixture(scope="session")
def answers(target: PretrainedTarget, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What it says about four clips."""
    return listed(ask(target, greedy_questions(4), tmp_path_factory.mktemp("answers")))
