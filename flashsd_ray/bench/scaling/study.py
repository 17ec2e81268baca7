"""The study: stage costs are measured on one lane, then one and two lanes are predicted and measured.

Measuring and concluding are two steps. What was measured can be kept, and concluded from again when the model has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median

from flashsd_ray.bench.scaling.costs import Costs, Supply, Workload
from flashsd_ray.bench.scaling.fit import Counted, Machine, explained, fitted
from flashsd_ray.bench.scaling.live import Step, live
from flashsd_ray.bench.scaling.raw import Raw
from flashsd_ray.bench.scaling.service import predict
from flashsd_ray.bench.scaling.stages import crowding, known_costs
from flashsd_ray.bench.serving.asks import Ask
from flashsd_ray.bench.serving.generator import LoadGenerator
from flashsd_ray.config import Config

SEED = 20260
SEEDS = range(SEED, SEED + 5)  # of one prediction: which drafts stand is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured; loads of the calibration differ from those that are predicted."""

    calibration: Sequence[Step]  # on one lane
    users_per_lane: int  # of what is predicted
    new_tokens: int
    requests_per_lane: int
    repeats: int
    draft_length: int
    idle_s: float
    num_cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One prediction and what was measured."""

    num_lanes: int
    measured_tokens_per_s: float  # median of the repeats
    predicted_tokens_per_s: float  # mean of several draws
    repeats: tuple[float, ...]
    draws: tuple[float, ...] = ()
    explained: Mapping[str, float] = field(default_factory=dict)  # of each part's processor time, see fit.explained
    others_cores: float = 0.0  # that something else kept busy while it was measured: then the speeds say little

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted_tokens_per_s / self.measured_tokens_per_s - 1

    @property
    def errors(self) -> tuple[float, float]:
        """The same for the fastest and for the slowest repeat."""
        return self.predicted_tokens_per_s / max(self.repeats) - 1, self.predicted_tokens_per_s / min(self.repeats) - 1

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"error": self.error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was measured."""

    costs: Costs
    workload: Workload
    slowdown: float
    loads: tuple[Counted, ...]
    checks: tuple[Check, ...]


async def measure(
    configs: Mapping[int, Config],  # by number of lanes: 1, and every other that is to be checked
    plan: Plan,
    asks: Sequence[Ask],
    generator: LoadGenerator,
    feature_bytes: int,  # of one request
    on_load: Callable[[], None] = lambda: None,
) -> Raw:
    """Loads on one lane whose costs are to be told, and the loads that are to be predicted, for every number of lanes.

    Raises:
        FlashSDError: a fleet did not come up, or a request was not answered.
    """
    one = configs[1]
    known = known_costs([ask.picture for ask in asks], one.media, feature_bytes=feature_bytes)
    machine = Machine(num_cores=plan.num_cores, slowdown=crowding(one, plan.num_cores, plan.draft_length))
    final = Step(users=plan.users_per_lane, new_tokens=plan.new_tokens, requests=plan.requests_per_lane)
    checked: dict[int, list[Counted]] = {number: [] for number in configs}
    loads: list[Counted] = []
    idle_s: dict[str, float] = {}
    for number, config in configs.items():
        step = replace(final, users=final.users * number, requests=final.requests * number)
        async with live(config, generator) as service:
            await service.carry_out(replace(step, requests=step.users), asks, plan.draft_length)  # warms up
            if number == 1:
                idle_s = await service.idle(plan.idle_s)
                for one_step in plan.calibration:
                    loads.append(await service.carry_out(one_step, asks, plan.draft_length))
                    on_load()
            for _ in range(plan.repeats):
                checked[number].append(await service.carry_out(step, asks, plan.draft_length))
                on_load()
    return Raw(
        machine=machine,
        known=known,
        idle_s=idle_s,
        num_watched=one.placement.num_lanes + one.placement.num_encoders,
        loads=tuple(loads),
        checked={number: tuple(several) for number, several in checked.items()},
        supplies={number: _supply(config, machine) for number, config in configs.items()},
        users_per_lane=plan.users_per_lane,
        new_tokens=plan.new_tokens,
        draft_length=plan.draft_length,
        num_frames=one.media.num_frames,
        num_pictures=len(asks),
    )


def concluded(raw: Raw) -> Measured:
    """Costs from the loads on one lane, and predictions beside measurements for every number of lanes."""
    known = replace(
        raw.known,
        ray_idle=sum(raw.idle_s.values()),
        watch_s=raw.idle_s["fleet"] / raw.num_watched,
        round_wait_s=_round_wait_s(raw),
    )
    workload = _workload(raw)
    costs = fitted(raw.loads, raw.idle_s, known, raw.machine)
    costs = replace(costs, hand_over_s=_hand_over_s(costs, workload, raw.loads, raw.supplies[1]))
    checks = [_check(costs, workload, raw, number) for number in raw.checked]
    return Measured(
        costs=costs, workload=workload, slowdown=raw.machine.slowdown, loads=raw.loads, checks=tuple(checks)
    )


def _round_wait_s(raw: Raw) -> float:
    """Time of a round in which its thread neither works nor waits for a core: with one user several cores are enough."""
    if raw.machine.num_cores < 2:
        return 0.0  # it cannot be told from waiting for the core
    waits = [(one.rounds_s - one.cpu_s["lane"]) / one.rounds for one in raw.loads if one.users == 1]
    return max(0.0, sum(waits) / len(waits)) if waits else 0.0


def _workload(raw: Raw) -> Workload:
    """What the loads had in common: their pictures, prompts and drafts.

    How many drafts stand changes along an answer, so it is told by answers as long as those that are predicted.
    """
    drafted = [one for one in raw.loads if one.survival]
    drafted = [one for one in drafted if one.new_tokens == raw.new_tokens] or drafted
    length = min((len(one.survival) for one in drafted), default=0)
    weights = [one.tokens for one in drafted]
    survival = [
        sum(one.survival[position] * weight for one, weight in zip(drafted, weights, strict=True)) / sum(weights)
        for position in range(length)
    ]
    return Workload(
        num_frames=raw.num_frames,
        prompt_rows=round(sum(one.prompt_rows for one in raw.loads) / sum(one.requests for one in raw.loads)),
        new_tokens=raw.new_tokens,
        draft_length=raw.draft_length,
        survival=tuple(survival),
        num_pictures=raw.num_pictures,
    )


def _supply(config: Config, machine: Machine) -> Supply:
    return Supply(
        num_lanes=config.placement.num_lanes,
        num_encoders=config.placement.num_encoders,
        decode_threads=config.serving.decode_threads,
        max_running=config.scheduling.max_running,
        prefill_rows=config.scheduling.prefill_rows,
        stream_interval_s=config.scheduling.stream_interval_s,
        num_cores=machine.num_cores,
        slowdown=machine.slowdown,
    )


def _hand_over_s(costs: Costs, workload: Workload, loads: Sequence[Counted], supply: Supply) -> float:
    """Time of a lonely user's request that no part works on."""
    gaps = []
    for one in loads:
        if one.users == 1:
            alike = replace(workload, new_tokens=one.new_tokens, survival=one.survival)
            alone = predict(costs, alike, supply, num_users=1, num_requests=max(4, one.requests), seed=SEED)
            gaps.append(one.answer_s - alone.answer_s)
    return max(0.0, sum(gaps) / len(gaps)) if gaps else 0.0


def _check(costs: Costs, workload: Workload, raw: Raw, num_lanes: int) -> Check:
    measured, supply = raw.checked[num_lanes], raw.supplies[num_lanes]
    draws = [
        predict(
            costs,
            workload,
            supply,
            num_users=raw.users_per_lane * num_lanes,
            num_requests=measured[0].requests,
            seed=seed,
        ).tokens_per_s
        for seed in SEEDS
    ]
    shares = [explained(costs, one, raw.idle_s, raw.machine) for one in measured]
    return Check(
        num_lanes=num_lanes,
        measured_tokens_per_s=median(one.tokens_per_s for one in measured),
        predicted_tokens_per_s=fmean(draws),
        repeats=tuple(one.tokens_per_s for one in measured),
        draws=tuple(draws),
        explained={part: median(one[part] for one in shares) for part in shares[0]},
        others_cores=median(one.others_cores for one in measured),
    )
