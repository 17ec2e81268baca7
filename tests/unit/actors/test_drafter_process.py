"""The bundled drafter in a process of its own: the same answers, also when that process is killed in the middle."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import pytest
import torch

from flashsd_ray.actors.drafter_front import DrafterFront
from flashsd_ray.actors.remote_drafter import RemoteDrafter
from flashsd_ray.bench.workload import held_out_questions
from flashsd_ray.config import Config, ModelConfig, PlacementConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models.pretrained import load_target
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.remote_drafting import KEY, serve_in_process

# In float32, and with as many drafts as asked for: then not even the number of rows in a forward may matter.
CONFIG = Config(
    model=ModelConfig(dtype="float32"),
    speculation=SpeculationConfig(draft_length=8),
    placement=PlacementConfig(drafter_timeout_s=60.0),
)


@dataclass
class Served:
    """A drafter in another process, and the pipelines of this one with and without it."""

    process: BaseProcess
    remote: RemoteDrafter
    engine: Engine
    colocated: Engine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    spawning = multiprocessing.get_context("spawn")
    ready, told = spawning.Pipe(duplex=False)
    address = f"unix:{tmp_path_factory.mktemp('drafter')}/socket"
    process = spawning.Process(target=serve_in_process, args=(CONFIG, address, told), daemon=True)
    process.start()
    told.close()  # so that a process that fails is not waited for
    target = load_target(CONFIG.model.name, dtype=CONFIG.model.dtype)
    colocated = Engine.around(target, CONFIG)
    front = DrafterFront.load(CONFIG, view_of(target))
    remote = RemoteDrafter.at(ready.recv(), KEY, front, CONFIG.placement)
    yield Served(process, remote, Engine(target, remote, CONFIG, drafter_name="remote"), colocated)
    process.kill()
    process.join()


def request(sampling: SamplingParams) -> CaptionRequest:
    (question,) = held_out_questions(1)
    return CaptionRequest(request_id="r", prompt=question.prompt, visuals=(question.visual,), sampling=sampling)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_another_process_drafts_the_same_blocks(served: Served, temperature: float) -> None:
    asked = request(SamplingParams(max_new_tokens=40, temperature=temperature))
    here, there = (
        [(chunk.token_ids, chunk.num_drafted, chunk.num_accepted) for chunk in engine.stream(asked)]
        for engine in (served.colocated, served.engine)
    )
    assert there == here
    assert sum(num_accepted for _, _, num_accepted in there) > 0
    assert not served.remote.is_lost


def test_killing_the_drafter_changes_no_token(served: Served) -> None:
    asked = request(SamplingParams(max_new_tokens=40))
    expected = served.colocated.caption(asked)
    chunks = []
    for chunk in served.engine.stream(asked):
        chunks.append(chunk)
        if len(chunks) == 2:
            served.process.kill()
            served.process.join()
    assert served.remote.is_lost
    assert sum(chunk.num_drafted for chunk in chunks[:2]) > 0
    assert sum(chunk.num_drafted for chunk in chunks[3:]) == 0
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == expected.token_ids
    assert served.engine.caption(asked).token_ids == expected.token_ids
