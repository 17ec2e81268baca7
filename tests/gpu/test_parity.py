"""On a GPU: the same code gives the tokens that the CPU gives in float32, drafted or not."""

from __future__ import annotations

import pytest
import torch

from flashsd_ray.config import Config, SchedulingConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models.drafters import build_drafter
from flashsd_ray.models.pretrained import load_target
from tests.contract.test_engine_equals_transformers import VISUALS, ask
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["none", "lookup", "block", "flash", "ar"])
def test_tokens_are_those_of_the_cpu(family: str, kind: str) -> None:
    missing = missing_requirement(family)
    if missing:
        pytest.skip(missing)
    answers = []
    for device in ("cpu", "cuda"):
        target = load_target(str(checkpoint(family)), dtype="float32", device=device)
        config = Config(scheduling=SchedulingConfig(cache_rows=4096, max_running=3, prefill_rows=40))
        engine = Engine(target, build_drafter(kind, view_of(target), seed=3), config)
        answers.append({caption.request_id: caption.token_ids for caption in engine.caption_many(map(ask, VISUALS))})
    assert answers[0] == answers[1]
