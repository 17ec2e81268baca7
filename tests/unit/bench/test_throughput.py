"""The loads that are sent, and two services in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flashsd_ray.bench.serving.asks import Outcome
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.overload import Sizes
from flashsd_ray.bench.serving.overload import measure as overload
from flashsd_ray.bench.serving.ray_overhead import gain, overhead
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.bench.serving.throughput import Plan, measure
from flashsd_ray.engine.answers import Caption, Chunk
from flashsd_ray.engine.local import Engine
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import CaptionRequest, FinishReason
from tests.fake_service import EchoService
from tests.unit.bench.conftest import new_ask

SERVER = Server(http_url="http://h/v1", grpc_address="h:1", pid=1)
PLAN = Plan(concurrencies=(1, 4), num_requests=3, shares=(0.5, 0.9), num_arrivals=5, num_warm=2)


class FakeGenerator:
    """Every request of a closed loop takes two seconds; of open ones a quarter is refused."""

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def run(self, load: Load, on_end: Callable[[], None] = lambda: None) -> list[Outcome]:
        self.loads.append(load)
        outcomes = []
        for index, ask in enumerate(load.asks):
            start_s = load.arrivals_s[index] if load.arrivals_s else 2.0 * (index // load.concurrency)
            code = "429" if load.arrivals_s and index % 4 == 3 else "OK"
            outcomes.append(
                Outcome(
                    name=ask.name,
                    start_s=start_s,
                    end_s=start_s + 2,
                    code=code,
                    text="t",
                    token_ids=(1,),
                    num_tokens=1,
                    finish_reason="stop",
                )
            )
        return outcomes


def test_every_load_has_requests_of_its_own_and_open_loops_follow_the_capacity() -> None:
    generator = FakeGenerator()
    asks = [new_ask(b"", name=str(number)) for number in range(sum(PLAN.sizes))]
    points = list(measure(generator, SERVER, PLAN, asks, placement="local", edge="grpc"))  # type: ignore[arg-type]
    names = [ask.name for load in generator.loads for ask in load.asks]
    assert len(set(names)) == len(names) == sum(PLAN.sizes)
    assert [len(load.asks) for load in generator.loads] == PLAN.sizes == [2, 3, 8, 5, 5]
    assert [load.concurrency for load in generator.loads] == [4, 1, 4, 0, 0]
    assert all(load.address == "h:1" for load in generator.loads)
    assert [point.rate_per_s for point in points] == [0.0, 0.0, 1.0, 1.8]  # 4 at a time, 2 s each: two a second
    assert [point.load for point in points] == ["1 at a time", "4 at a time", "1.00/s (50%)", "1.80/s (90%)"]


def test_fewer_clips_are_asked_again() -> None:
    generator = FakeGenerator()
    list(measure(generator, SERVER, PLAN, [new_ask(b"")] * 3, placement="local", edge="http"))  # type: ignore[arg-type]
    assert sum(len(load.asks) for load in generator.loads) == sum(PLAN.sizes)


def caption(text: str) -> Caption:
    return Caption(
        request_id="one",
        text=text,
        token_ids=(1,),
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=1,
        stats=SpeculationStats(),
    )


@pytest.mark.parametrize(("text", "num_faults"), [("t", 0), ("other", 9 + 12)], ids=["right", "wrong"])
def test_overload_is_several_times_what_is_sustainable_and_all_answers_are_checked(text: str, num_faults: int) -> None:
    sizes = Sizes(seconds=4.0, factor=3.0, concurrency=2, num_calm=6)
    generator = FakeGenerator()
    found = overload(
        generator,  # type: ignore[arg-type]
        SERVER,
        [new_ask(b"")],
        {"one": caption(text)},
        sizes,
        placement="local",
        edge="http",
    )
    assert found.sustainable_per_s == 1.0
    assert found.during.num_requests == 12
    assert found.num_refused == 3
    assert len(found.faults) == num_faults  # during, and before and after
    assert found.is_sound is (num_faults == 0)


class FakeEngine:
    """Answers as the echo service does."""

    def __init__(self, token_id: int) -> None:
        self.token_id = token_id

    def stream(self, request: CaptionRequest) -> Iterator[Chunk]:
        stats = EchoService._stats(3) + SpeculationStats.of_stage("decode", 0.5)
        yield Chunk(request_id=request.request_id, token_ids=(1,), text="0")
        last = (2, self.token_id)
        yield Chunk(request_id=request.request_id, token_ids=last, finish_reason=FinishReason.STOP, stats=stats)


class TimedService(EchoService):
    """The echo service with a time in its statistics."""

    @staticmethod
    def _stats(num_words: int) -> SpeculationStats:
        return EchoService._stats(num_words) + SpeculationStats.of_stage("decode", 1.5)


def requests(count: int) -> list[CaptionRequest]:
    return [CaptionRequest(request_id=str(number), prompt="a") for number in range(count)]


@pytest.mark.parametrize(("token_id", "num_identical"), [(3, 4), (9, 0)], ids=["identical", "different"])
async def test_overhead_is_a_ratio_of_pairs_and_counts_identical_answers(token_id: int, num_identical: int) -> None:
    engine: Engine = FakeEngine(token_id)  # type: ignore[assignment]
    found = await overhead(engine, TimedService(), requests(4))
    assert found.decode.ratio.value == 3.0
    assert found.decode.ratio.num_pairs == 3  # one warms up
    assert (found.decode.engine_s, found.decode.ray_s) == (0.25, 0.75)
    assert (found.num_answers, found.num_identical) == (4, num_identical)
    assert found.edge.ray_s > 0


async def test_gain_asks_both_services_everything_once() -> None:
    one, other = EchoService(), EchoService()
    turns = [requests(4)[:2], requests(4)[2:]]
    found = await gain(one, other, turns, concurrency=2)
    assert (found.num_answers, found.num_identical) == (4, 4)
    assert found.faster.num_pairs == 1
    for service in (one, other):
        assert sorted(request.request_id for request in service.asked) == ["0", "1", "2", "3"]
