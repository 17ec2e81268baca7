"""What Ray costs a token, and what a drafter in a process of its own brings: two ways, timed in turn in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter

import anyio

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.bench.intervals import Ratio, ratio_of_totals
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.types import CaptionRequest


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer and when it came."""

    caption: Caption
    edge_s: float  # from the first chunk to the last, where the edge stands

    @property
    def decode_s(self) -> float:
        """From the first token to the last, in the lane."""
        return self.caption.stats.seconds["decode"]

    @property
    def num_decoded(self) -> int:
        """Tokens after the first."""
        return self.caption.stats.num_new_tokens - 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds per token after the first, in this process and in a lane of Ray."""

    engine_s: float
    ray_s: float
    ratio: Ratio  # how many times longer Ray takes

    @classmethod
    def of(cls, engine_s: Sequence[float], ray_s: Sequence[float], num_tokens: int) -> Cost:
        """From the seconds of each pair, and the tokens that both decoded in all of them."""
        return cls(sum(engine_s) / num_tokens, sum(ray_s) / num_tokens, ratio_of_totals(ray_s, engine_s))

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "engine_s_per_token": self.engine_s,
            "ray_s_per_token": self.ray_s,
            "ray_over_engine": self.ratio.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """A lane of Ray against the same engine in this process, one request at a time."""

    decode: Cost  # as the lane measures it
    edge: Cost  # as the edge sees it
    num_answers: int
    num_identical: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "measured": "colocated lane against the engine in this process, batch 1",
            "decode": self.decode.as_dict(),
            "edge": self.edge.as_dict(),
            "num_answers": self.num_answers,
            "num_identical": self.num_identical,
        }


async def overhead(
    engine: Engine,
    service: CaptionService,
    requests: Sequence[CaptionRequest],  # the first warms up
    on_pair: Callable[[], None] = lambda: None,
) -> Overhead:
    """Every request is answered by both, each going first in turn; answers of one token are left out."""
    pairs: list[tuple[Timed, Timed]] = []  # by the engine, by Ray
    num_identical = 0
    for number, request in enumerate(requests):
        if number % 2:
            alone = _by_engine(engine, request)
            served = await _by_service(service, request)
        else:
            served = await _by_service(service, request)
            alone = _by_engine(engine, request)
        num_identical += alone.caption.token_ids == served.caption.token_ids
        if number and alone.num_decoded:
            pairs.append((alone, served))
        on_pair()
    num_decoded = sum(alone.num_decoded for alone, _ in pairs)
    return Overhead(
        decode=Cost.of([one.decode_s for one, _ in pairs], [other.decode_s for _, other in pairs], num_decoded),
        edge=Cost.of([one.edge_s for one, _ in pairs], [other.edge_s for _, other in pairs], num_decoded),
        num_answers=len(requests),
        num_identical=num_identical,
    )


def _by_engine(engine: Engine, request: CaptionRequest) -> Timed:
    chunks, times = list[Chunk](), list[float]()
    for chunk in engine.stream(request):
        chunks.append(chunk)
        times.append(perf_counter())
    return Timed(joined(chunks), times[-1] - times[0])


async def _by_service(service: CaptionService, request: CaptionRequest) -> Timed:
    chunks, times = list[Chunk](), list[float]()
    async with aclosing(service.stream(request)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            times.append(perf_counter())
    return Timed(joined(chunks), times[-1] - times[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A dedicated drafter against one beside the target, many requests at a time."""

    faster: Ratio  # how many times faster the fleet with dedicated drafters is
    colocated_tokens_per_s: float
    dedicated_tokens_per_s: float
    concurrency: int
    num_answers: int
    num_identical: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "measured": f"dedicated against colocated drafter, {self.concurrency} at a time",
            "faster": self.faster.as_dict(),
            "colocated_tokens_per_s": self.colocated_tokens_per_s,
            "dedicated_tokens_per_s": self.dedicated_tokens_per_s,
            "num_answers": self.num_answers,
            "num_identical": self.num_identical,
        }


async def gain(
    colocated: CaptionService,
    dedicated: CaptionService,
    turns: Sequence[Sequence[CaptionRequest]],  # the first warms up
    *,
    concurrency: int,
    on_turn: Callable[[], None] = lambda: None,
) -> Gain:
    """Each turn's requests are answered by both fleets, each going first in turn; the other one rests meanwhile."""
    times: dict[str, list[float]] = {"colocated": [], "dedicated": []}
    services = {"colocated": colocated, "dedicated": dedicated}
    num_identical = num_tokens = 0
    for number, requests in enumerate(turns):
        answers: dict[str, dict[str, Caption]] = {}
        for name in ("colocated", "dedicated") if number % 2 else ("dedicated", "colocated"):
            start_s = perf_counter()
            answers[name] = await _all_answers(services[name], requests, concurrency)
            if number:
                times[name].append(perf_counter() - start_s)
        mine, theirs = answers["colocated"], answers["dedicated"]
        num_identical += sum(mine[key].token_ids == theirs[key].token_ids for key in mine)
        num_tokens += sum(len(caption.token_ids) for caption in mine.values()) if number else 0
        on_turn()
    return Gain(
        faster=ratio_of_totals(times["colocated"], times["dedicated"]),
        colocated_tokens_per_s=num_tokens / sum(times["colocated"]),
        dedicated_tokens_per_s=num_tokens / sum(times["dedicated"]),
        concurrency=concurrency,
        num_answers=sum(map(len, turns)),
        num_identical=num_identical,
    )


async def _all_answers(
    service: CaptionService, requests: Sequence[CaptionRequest], concurrency: int
) -> dict[str, Caption]:  # by request id
    answers: dict[str, Caption] = {}
    waiting = iter(requests)

    async def answer_in_turn() -> None:
        for request in waiting:
            answers[request.request_id] = (await _by_service(service, request)).caption

    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(answer_in_turn)
    return answers
