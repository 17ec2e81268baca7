"""Ranks in processes of their own: they answer as one process does, and end with the one that started them.

Obligations: same tokens; a rank that is killed, or that hangs, ends the group with one typed error and leaves no process;
ranks do not outlive a leader that is killed; what cannot be split is refused with sizes that would work.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flashsd_ray.config import Config, ModelConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import CheckpointError, ConfigError, LaneLostError
from flashsd_ray.models.loading import load_configured, load_undecoding
from flashsd_ray.models.parallel.decoders import LeadingDecoder
from flashsd_ray.models.parallel.local import LocalCrew
from flashsd_ray.types import CaptionRequest, SamplingParams

WHOLE = Config(model=ModelConfig(dtype="float32", device="cpu"))
SPLIT = Config(model=ModelConfig(dtype="float32", device="cpu", tensor_parallel=2, rank_timeout_s=5))
LEADER = """
from flashsd_ray.config import Config, ModelConfig
from flashsd_ray.engine.local import Engine
engine = Engine.local(Config(model=ModelConfig(dtype="float32", device="cpu", tensor_parallel=2)))
print(*engine.target.decoder.crew.process_ids, flush=True)
input()
"""


def ask(request_id: str = "r") -> CaptionRequest:
    return CaptionRequest(request_id=request_id, prompt="Say something.", sampling=SamplingParams(max_new_tokens=24))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine.local(SPLIT)
    yield engine
    leading_of(engine).close()


def leading_of(engine: Engine) -> LeadingDecoder:
    assert isinstance(engine.target.decoder, LeadingDecoder)
    return engine.target.decoder


def process_of(engine: Engine) -> int:
    crew = leading_of(engine).crew
    assert isinstance(crew, LocalCrew)
    return crew.process_ids[0]


def lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("stopping", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_takes_the_group_down_with_one_error(engine: Engine, stopping: signal.Signals) -> None:
    expected = Engine.local(WHOLE).caption(ask())
    assert engine.caption(ask()).token_ids == expected.token_ids
    stream = engine.stream(ask())
    next(stream)
    lost = process_of(engine)
    os.kill(lost, stopping)
    with pytest.raises(LaneLostError):
        list(stream)
    assert not lives(lost)
    with pytest.raises(LaneLostError):  # at once: nobody is waited for any more
        engine.caption(ask("later"))


def test_ranks_do_not_outlive_a_leader_that_is_killed() -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert leader.stdin is not None
    assert leader.stdout is not None
    (rank,) = map(int, leader.stdout.readline().split())
    watched = os.pidfd_open(rank)
    leader.kill()
    leader.wait()
    ended, _, _ = select.select([watched], [], [], 60)
    os.close(watched)
    leader.stdin.close()
    leader.stdout.close()
    assert ended


def test_sizes_that_cannot_work_are_refused_with_those_that_would() -> None:
    with pytest.raises(CheckpointError, match=r"num_key_value_heads is 1 .* sizes that work: 1, 2, 3, 4, 5"):
        load_configured(ModelConfig(tensor_parallel=6))
    with pytest.raises(ConfigError, match=r"model\.tensor_parallel"):
        ModelConfig(tensor_parallel=0)


def test_whoever_does_not_decode_keeps_no_layer() -> None:
    outline = load_undecoding(SPLIT.model)
    assert outline.fingerprint == load_configured(WHOLE.model).fingerprint
    assert all(layer.qkv.weight.is_meta for layer in outline.decoder.layers)
    drafting = Engine.around(outline, Config(speculation=SpeculationConfig(drafter="block")))
    assert drafting.drafter.max_draft_length > 0
